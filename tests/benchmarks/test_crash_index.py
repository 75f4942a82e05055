"""A short form of `python -m benchmarks.crash.index`."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmarks.crash.index import play


def test_an_index_recovers_from_a_kill_at_any_point_of_maintenance(tmp_path: Path) -> None:
    seen = play(tmp_path, 6, 3, Console(file=StringIO()))
    for kind in ("hnsw", "ivf_sq8"):
        assert sum(seen[kind]["first after a kill"].values()) == 3
        assert seen[kind]["first after a kill"].keys() <= {"trained", "restored"}  # the rounds were about something
