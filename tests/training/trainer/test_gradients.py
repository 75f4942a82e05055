"""The logged gradient norms against the step that plain SGD takes: a weight moves by lr times its gradient."""

import math

import pytest
import torch

from training.config import load_config
from training.distributed import SINGLE_PROCESS
from training.errors import ConfigError
from training.trainer.learner import Learner, Update
from training.trainer.optimizer import lr_factor

PLAIN = [
    "preset=short", "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "gradients_every=1",
    "sampler.identities=4", "sampler.crops=2", "optim.name=sgd", "optim.lr=0.01", "optim.momentum=0",
    "optim.weight_decay=0", "optim.warmup=0", "optim.schedule=steps",
]  # fmt: skip


def updated(*overrides: str) -> tuple[Update, float]:
    """One update of a small network, and the norm of the step divided by the learning rate."""
    learner = Learner(load_config(None, [*PLAIN, *overrides]), 4, SINGLE_PROCESS, torch.device("cpu"))
    weights = [parameter for group in learner.optimizer.param_groups for parameter in group["params"]]
    before = [weight.detach().clone() for weight in weights]
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 64, 32, 3), dtype=torch.uint8).numpy()
    update = learner.update(0, images, torch.arange(4).repeat_interleave(2), False)
    moved = sum(float((new.detach() - old).square().sum()) for new, old in zip(weights, before, strict=True))
    return update, math.sqrt(moved) / 0.01


def test_the_gradient_norm_is_that_of_the_step() -> None:
    update, moved = updated("optim.clip_norm=null")
    assert update.values["grad_norm"] == pytest.approx(moved, rel=1e-3)
    assert update.values["clip_factor"] == 1


def test_the_clip_factor_is_the_scale_of_the_step() -> None:
    update, moved = updated("optim.clip_norm=0.5")
    assert moved == pytest.approx(0.5, rel=1e-3)
    assert update.values["grad_norm"] * update.values["clip_factor"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("term", ["xent", "triplet", "orthogonality"])
def test_the_norm_of_a_term_is_the_step_of_that_term_alone(term: str) -> None:
    alone = [f"loss.{other}=0" for other in ("triplet", "orthogonality") if other != term]
    terms, _ = updated("optim.clip_norm=null")
    single, moved = updated("optim.clip_norm=null", *alone)
    if term == "xent":
        assert terms.values["grad_xent"] == pytest.approx(moved, rel=1e-3)
    assert single.values[f"grad_{term}"] == pytest.approx(terms.values[f"grad_{term}"], rel=1e-3)
    assert all(single.values[f"grad_{other.removeprefix('loss.').removesuffix('=0')}"] == 0 for other in alone)


def test_terms_are_measured_every_so_many_iterations_only() -> None:
    update, _ = updated("gradients_every=0")
    assert math.isnan(update.values["grad_xent"])


def test_a_triplet_on_unit_descriptors_is_bounded_by_their_distances() -> None:
    values = updated("loss.triplet_features=unit", "model.bnneck=false")[0].values
    assert 0 < values["triplet"] <= 0.3 + 2
    assert updated("model.bnneck=false")[0].values["triplet"] > 2.3


def test_new_layers_start_as_configured() -> None:
    config = load_config(None, [*PLAIN, "model.mask_affine=true", "model.mask_shift=0.5", "model.embedding_scale=0.1"])
    network = Learner(config, 4, SINGLE_PROCESS, torch.device("cpu")).network
    assert network.embedding.norm.weight.eq(0.1).all()
    shifts = [scale.spatial[4].bias for scale in network.parts.scales]
    assert [len(shift) for shift in shifts] == [1, 2, 3]
    assert all(shift.eq(0.5).all() for shift in shifts)
    with pytest.raises(ConfigError, match="mask_shift is the shift of a learned batch norm"):
        load_config(None, [*PLAIN, "model.mask_shift=0.5"])


def test_the_warm_up_rises_from_its_start_to_the_full_rate() -> None:
    config = load_config(None, ["optim.iterations=100", "optim.warmup=0.1", "optim.warmup_start=0.5"]).optim
    factors = [lr_factor(step, config) for step in range(11)]
    assert factors[0] == pytest.approx(0.5 + 0.5 / 11)
    assert factors[10] == 1
    assert factors == sorted(factors)
