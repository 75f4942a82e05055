"""A short form of `python -m benchmarks.crash_index`."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmarks.crash_index import play


def test_an_index_is_right_again_wherever_its_upkeep_was_killed(tmp_path: Path) -> None:
    seen = play(tmp_path, 6, 3, Console(file=StringIO()))
    assert all(seen[kind]["acknowledged"] > 0 for kind in ("hnsw", "ivf_sq8"))
