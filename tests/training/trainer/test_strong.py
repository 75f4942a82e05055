"""Preset `strong`: its parts act together in one run, and the result is what is exported."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from training.checkpoint import load_checkpoint
from training.config import load_config
from training.model import PAN
from training.trainer import Trainer

SMALL = [
    "preset=strong", "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1",
    "sampler.identities=4", "sampler.crops=2", "optim.iterations=6", "optim.freeze_backbone=0.5",
    "loss.circle=0.1", "augment.trivial=0.5", "model.ibn=true",
]  # fmt: skip


def test_strong_trains_with_every_option_and_saves_the_average_with_seven_parts(market: Path, tmp_path: Path) -> None:
    config = load_config(None, [*SMALL, "model.weights=null", "optim.freeze_backbone=0"])
    save_file(PAN(config.model.network()).backbone.state_dict(), tmp_path / "start.safetensors")
    options = [f"data.path={market}", f"model.weights={tmp_path / 'start.safetensors'}"]
    threads = torch.get_num_threads()
    trainer = Trainer(load_config(None, [*SMALL, *options]), tmp_path / "run", Console(file=io.StringIO()))
    card = trainer.run()
    torch.set_num_threads(threads)
    assert card.provenance.recipe == "strong"
    network, _ = load_checkpoint(tmp_path / "run")
    assert network.config.parts == 7
    assert trainer.learner.average is not None
    average = trainer.learner.average.module.state_dict()
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in average.items())
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), map(float, rows[-1].split(",")), strict=True))
    terms = [last[name] for name in ("xent", "triplet", "circle", "orthogonality")]
    assert min(terms) >= 0
    assert last["loss"] == pytest.approx(sum(terms), rel=1e-3)


def test_strong_asks_for_pretrained_weights() -> None:
    config = load_config(None, ["preset=strong"])
    assert (config.model.weights, config.loss.margin, config.optim.schedule) == ("imagenet", None, "cosine")
    assert config.model.network().parts == 7
