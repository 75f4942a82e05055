"""The short forms of `python -m benchmarks.crash` and `benchmarks.crash.reembedding`."""

from pathlib import Path

from rich.console import Console

from benchmarks.crash import __main__ as crash
from benchmarks.crash import reembedding as crash_reembed


def test_acknowledged_changes_survive_every_sigkill(tmp_path: Path) -> None:
    found = crash.play(tmp_path, rounds=8, seed=7, progress=Console(quiet=True))
    assert found["acknowledged"]["enrol"] > 0  # the rounds were about something
    assert found["acknowledged"]["enrol, keeping crops"] > 0
    assert sum(found["answers lost"].values()) > 0


def test_a_gallery_has_vectors_of_one_model_after_every_sigkill(tmp_path: Path) -> None:
    found = crash_reembed.play(tmp_path, rounds=3, seed=7, progress=Console(quiet=True))
    assert found["killed on the way"] + found["arrived"] > 0
