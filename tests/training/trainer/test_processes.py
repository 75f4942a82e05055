"""Runs that torchrun spreads over two real processes, which meet over gloo."""

import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file

from tests.training.trainer.test_scale import SMALL
from training.checkpoint import load_checkpoint, load_state
from training.config import load_config
from training.data import read_data
from training.embed import evaluate_on, torch_embedder
from training.model import PAN
from training.trainer import Trainer

KEEPING = """
import os, sys, torch
from training import cli
from training.trainer import Trainer
kept, run = sys.argv.pop(), Trainer.run
def keep(self):
    card = run(self)
    torch.save(self.learner.network.state_dict(), kept + os.environ["RANK"])
    return card
Trainer.run = keep
cli.main()
"""

FAILING = """
import os
from training import cli
from training.data import CropStore
from training.errors import DataError
get, calls = CropStore.get, []
def failing(self, indices):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 4:
        raise DataError("crop.jpg cannot be used")
    return get(self, indices)
CropStore.get = failing
cli.main()
"""


def torchrun(*program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_two_processes_train_one_network(market: Path, tmp_path: Path) -> None:
    """The data set has 13 crops to evaluate: an odd number. Each process holds what a micro-batch would."""
    start = tmp_path / "start.safetensors"
    save_file(PAN(load_config(None, SMALL).model.network()).backbone.state_dict(), start)
    settings = [
        *SMALL, f"data.path={market}", "optim.iterations=8", "evaluate_every=4", "optim.ema=0.9",
        f"model.weights={start}", "optim.freeze_backbone=0.5",
    ]  # fmt: skip
    file = tmp_path / "program.py"
    file.write_text(KEEPING)
    out = tmp_path / "two"
    done = torchrun(str(file), "run", "--out", str(out), *settings, str(tmp_path / "w"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote ") == 1
    assert done.stderr.count("step 8: mAP") == 1
    first, second = (torch.load(tmp_path / f"w{rank}", weights_only=True) for rank in (0, 1))
    names = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(first[name], second[name]) for name in names)

    network, card = load_checkpoint(out)
    alone = evaluate_on(torch_embedder(network, card.input), read_data(market), card.input)
    assert alone == card.evaluation

    one = Trainer(load_config(None, [*settings, "optim.accumulate=2"]), tmp_path / "one", Console(quiet=True))
    one.run()
    for name in names:
        torch.testing.assert_close(first[name], one.learner.network.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_a_process_that_fails_ends_all_with_its_message(market: Path, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(FAILING)
    done = torchrun(str(file), "run", "--out", str(tmp_path / "run"), *SMALL, f"data.path={market}", "save_every=1")
    assert done.returncode != 0
    assert "error in process 1: crop.jpg cannot be used" in done.stderr
    assert "Traceback" not in done.stderr.split("elastic")[0]
    state = load_state(tmp_path / "run" / "resume.pt")
    assert 1 <= state["step"] <= 3
