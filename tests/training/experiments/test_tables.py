"""The paper's tables: what is counted, and a table that is trained run by run."""

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.training.cli.test_run import SMALL, pan_train
from training.experiments.cost import inspect_variant
from training.model import PAN, VARIANTS, BackboneConfig


@pytest.mark.parametrize(("variant", "gflop"), [("baseline", 12.3), ("pan_c", 12.4), ("pan_a", 12.4)])
def test_operations_of_a_crop(variant: str, gflop: float) -> None:
    assert inspect_variant(variant, BackboneConfig()).gflop == pytest.approx(gflop, abs=0.05)


def test_part_attention_costs_next_to_nothing() -> None:
    baseline, pan = (inspect_variant(variant, BackboneConfig()) for variant in ("baseline", "pan_c"))
    assert pan.gflop / baseline.gflop < 1.02
    assert pan.activation_gib / baseline.activation_gib < 1.02


def test_counted_activations_are_those_that_autograd_keeps() -> None:
    """On real tensors: what a forward pass leaves allocated, by storage, at a small batch scaled up."""
    backbone = BackboneConfig(depth=18, width=0.25)
    network = PAN(VARIANTS["pan_c"].model_copy(update={"backbone": backbone})).train()
    own = {parameter.data_ptr() for parameter in network.parameters()}
    image = torch.randn(4, 3, 64, 32)
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own and pointer != image.data_ptr():
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(image)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) * 128 / 4
    assert inspect_variant("pan_c", backbone, 64, 32).activation_gib * 2**30 == pytest.approx(real, rel=0.02)


def test_inspect_prints_the_papers_columns_beside_ours() -> None:
    rows = json.loads(pan_train("inspect", "pan_c", "bot", "--json").stdout)
    assert rows[0]["paper"] == {"parameters": 33.9, "memory": 17.83, "seconds": 76}
    assert rows[1]["paper"] is None


def test_a_table_is_trained_once_and_gone_on_with(market: Path, tmp_path: Path) -> None:
    small = [part for part in SMALL if not part.startswith(("seed", "optim.iterations"))]
    arguments = ["ablate", "table1", "--out", tmp_path, "--seeds", "1", f"data.path={market}", *small]
    first = pan_train(*arguments, "--variant", "global_pool", "optim.iterations=4")
    ours, paper = first.stdout.split("The paper, on Market-1501:")
    assert f"| {market.name} | global_pool | 1 |" in ours
    assert "| global_pool | 86.0 | 68.9 |" in paper
    weights = tmp_path / "global_pool-seed0" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    second = pan_train(*arguments, "--variant", "global_pool", "--variant", "plm_12", "optim.iterations=4")
    assert weights.stat().st_mtime_ns == written
    assert f"| {market.name} | plm_12 | 1 |" in second.stdout
    with (tmp_path / "table.csv").open() as stream:
        assert {row["variant"] for row in csv.DictReader(stream)} == {"global_pool", "plm_12"}


def test_a_table_names_what_it_does_not_have(tmp_path: Path) -> None:
    done = pan_train("ablate", "table1", "--out", tmp_path, "--variant", "pan_c", "data.path=x", check=False)
    assert done.returncode == 1
    assert "table1 has no pan_c" in done.stderr
