"""The paper's tables: parameters and memory, and a table that is trained run by run."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.cli.test_run import SMALL, pan_train
from training.checkpoint import load_checkpoint, load_state
from training.errors import ConfigError
from training.experiments.cost import inspect_variant
from training.experiments.paper import PRINTED
from training.experiments.recipes import read_table
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


def test_inspect_prints_the_figures_of_the_paper_in_a_table_of_their_own() -> None:
    ours, paper = pan_train("inspect", "pan_c", "global_bnneck").stdout.split("Printed in the paper")
    assert "global_bnneck" in ours
    assert "17.83" not in ours
    assert "17.83" in paper


def test_inspect_measures_time() -> None:
    small = ["--depth", "18", "--width", "0.125", "--size", "64x32", "--device", "cpu"]
    (row,) = json.loads(pan_train("inspect", "pan_c", *small, "--measure", "--json").stdout)
    assert row["ms_per_crop"] > 0
    assert row["training_gib"] is None


def test_inspect_gives_the_columns_of_the_paper() -> None:
    rows = json.loads(pan_train("inspect", "pan_c", "global_bnneck", "--json").stdout)
    assert rows[0]["paper"] == {"parameters": 33.9, "memory": 17.83, "seconds": 76}
    assert rows[1]["paper"] is None


def test_a_table_is_trained_once_and_continued(market: Path, tmp_path: Path) -> None:
    small = [part for part in SMALL if not part.startswith(("seed", "optim.iterations"))]
    arguments = ["ablate", "table1", "--out", tmp_path, "--seeds", "1", f"data.path={market}", *small]
    first = pan_train(*arguments, "--row", "global_pool", "optim.iterations=4")
    ours, paper = first.stdout.split("Printed in the paper, on the official data set:")
    assert f"| global_pool | {market.name} | 1 |" in ours
    assert "| global_pool | 86 | 94.3 | 96.2 | 68.9 |" in paper
    weights = tmp_path / "global_pool-seed0" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    both = ["--row", "global_pool", "--row", "plm_12", "--device", "cpu", "--device", "cpu"]
    second = pan_train(*arguments, *both, "optim.iterations=4")
    assert weights.stat().st_mtime_ns == written
    assert f"| plm_12 | {market.name} | 1 |" in second.stdout
    with (tmp_path / "table.csv").open() as stream:
        rows = {row["row"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["global_pool", "plm_12"]
    _, card = load_checkpoint(weights)
    assert card.evaluation is not None
    for name, value in {"rank1": 1, "rank5": 5, "rank10": 10}.items():
        assert float(rows["global_pool"][name]) == pytest.approx(card.evaluation.cmc[value], rel=1e-3)
    assert float(rows["plm_12"]["seconds"]) > 0
    assert float(rows["plm_12"]["memory"]) > 0
    assert "threads: 1" in rows["plm_12"]["device"]


def test_an_unknown_row_is_named_with_the_rows_of_the_table(tmp_path: Path) -> None:
    done = pan_train("ablate", "table1", "--out", tmp_path, "--row", "pan_c", "data.path=x", check=False)
    assert done.returncode == 1
    assert "row of table1: pan_c is unknown" in done.stderr
    with pytest.raises(ConfigError, match="table table9 is unknown; did you mean table"):
        read_table("table9")


def test_a_stopped_table_is_continued(market: Path, tmp_path: Path) -> None:
    small = [part for part in SMALL if not part.startswith(("seed", "optim.iterations"))]
    arguments = ["ablate", "table2", "--out", tmp_path, "--seeds", "1", "--row", "baseline", f"data.path={market}"]
    command = [sys.executable, "-m", "training.cli", *map(str, arguments), *small, "optim.iterations=3000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "baseline-seed0" / "resume.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "the same command continues the table" in stderr
    reached = load_state(tmp_path / "baseline-seed0" / "resume.pt")["step"]
    done = pan_train(*arguments, *small, f"optim.iterations={reached + 2}")
    assert "| baseline |" in done.stdout


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4", "table5", "orthogonality"])
def test_a_committed_table_has_the_rows_and_settings_of_the_paper(name: str) -> None:
    table = read_table(name)
    assert set(PRINTED[name]) <= set(table.rows)
    for row in table.rows:
        config = table.config(row, ["seed=3"], Path("root"))
        assert (config.preset, config.model.weights, config.seed) == ("paper", "imagenet", 3)
        assert config.model.network().bnneck == (name in ("table3", "table4", "table5") or row == "global_bnneck")
        assert config.data.path is not None
        assert Path("root") in Path(str(config.data.path)).parents
        if name in ("table1", "table2"):
            assert config.model.variant == row
        if name in ("table1", "table2"):
            assert config.loss.orthogonality == {"table1": 0, "table2": 1e-3}[name]
        if name == "orthogonality":
            assert config.loss.orthogonality == float(row.removeprefix("lambda_"))
