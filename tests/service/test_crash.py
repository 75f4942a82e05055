"""The short form of `python -m benchmarks.crash`."""

from pathlib import Path

from rich.console import Console

from benchmarks.crash import play


def test_what_was_said_is_true_after_every_sigkill(tmp_path: Path) -> None:
    found = play(tmp_path, rounds=8, seed=7, progress=Console(quiet=True))
    assert found["acknowledged"]["enrol"] > 0  # the rounds were about something
    assert sum(found["answers lost"].values()) > 0
