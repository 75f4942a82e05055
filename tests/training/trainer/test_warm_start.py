"""A run that starts from another: which modules are taken, which are not and why, and the table of them."""

import csv
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from training.checkpoint import load_checkpoint
from training.config import load_config
from training.errors import CheckpointError, ConfigError
from training.trainer import Trainer
from training.trainer.warm_start import warm_start

TINY = [
    "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1", "sampler.identities=2",
    "sampler.crops=2", "optim.iterations=2", "optim.freeze_backbone=0.5",
]  # fmt: skip


def trainer(market: Path, out: Path, *settings: str) -> tuple[Trainer, StringIO]:
    told = StringIO()
    config = load_config(None, [f"data.path={market}", *TINY, *settings])
    return Trainer(config, out, Console(file=told, width=200)), told


@pytest.fixture(scope="module")
def source(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pan_c."""
    out = tmp_path_factory.mktemp("runs") / "source"
    trainer(market, out, "preset=short", "optim.freeze_backbone=0")[0].run()
    return out


def test_a_variant_takes_the_modules_of_another_that_fit(source: Path, market: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    run, told = trainer(market, out, "preset=finetune", f"model.init={source}", "model.variant=pan_a")
    before = load_checkpoint(source)[0].state_dict()
    now = run.learner.network.state_dict()
    for name, tensor in now.items():
        taken = name.startswith(("backbone.", "parts."))
        assert torch.equal(tensor, before[name]) or not taken, name
    card = run.run()
    assert "initialised from source" in card.provenance.licence_notes
    with (out / "weights.csv").open(newline="") as stream:
        rows = {row["module"]: row for row in csv.DictReader(stream)}
    assert {name for name, row in rows.items() if row["taken"] == "True"} == {
        "backbone", "parts.scales.0", "parts.scales.1", "parts.scales.2"
    }  # fmt: skip
    shape = r"is 6x256x120 in the file and 6x256x64 here"
    assert shape in rows["embedding"]["reason"]
    assert rows["pams.0"]["reason"].startswith("pams.0.f.weight is ")
    assert shape in told.getvalue()


def test_the_same_network_is_taken_whole_from_a_run_and_from_its_file(source: Path) -> None:
    expected, card = load_checkpoint(source)
    for path in (source, source / "model.safetensors"):
        network = type(expected)(card.network)
        modules = warm_start(network, str(path)).modules
        assert all(module.taken for module in modules)
        for name, tensor in expected.state_dict().items():
            assert torch.equal(network.state_dict()[name], tensor), name


def test_other_parts_and_a_backbone_alone_leave_the_rest(source: Path, tmp_path: Path) -> None:
    expected, card = load_checkpoint(source)
    wider = type(expected)(card.network.model_copy(update={"scales": (1, 2, 3, 4)}))
    taken = {module.module: module.taken for module in warm_start(wider, str(source)).modules}
    assert taken["parts.scales.2"]
    assert not taken["parts.scales.3"]
    save_file(expected.backbone.state_dict() | {"fc.weight": torch.zeros(2)}, tmp_path / "trunk.safetensors")
    network = type(expected)(card.network)
    rows = warm_start(network, str(tmp_path / "trunk.safetensors")).modules
    assert [module.module for module in rows if module.taken] == ["backbone"]
    assert (rows[-1].module, rows[-1].numbers, rows[-1].reason) == ("fc", 2, "not part of this network")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.depth=34"], r"set model\.depth=18"),
        (["model.width=0.25"], r"set model\.width=0\.125"),
        (["model.stem_pool=ceil"], r"trained with stem_pool=padded; set model\.stem_pool"),
        (["model.init=runs/nowhere"], "no weights file at runs/nowhere"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_before_training(
    settings: list[str], message: str, source: Path, market: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        trainer(market, tmp_path / "run", "preset=finetune", f"model.weights={source}", *settings)


def test_finetune_needs_weights(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights is null; set it to a run"):
        trainer(market, tmp_path / "run", "preset=finetune")
