"""The short form of `python -m benchmarks.service.soak`: everyday work, no wrong answer, a gallery that keeps its size.

Ten seconds are too short for a judgement of the memory to the per cent; a leak of what a request carries would show.
"""

import asyncio
from pathlib import Path

from benchmarks.service.soak import CLIENTS, PEOPLE_PER_CLIENT, play


def test_normal_work_gives_no_wrong_response_and_memory_stays_bounded(bundle: Path, tmp_path: Path) -> None:
    found = asyncio.run(play(tmp_path, bundle, seconds=10))
    assert found["faults"] == {}
    assert found["rounds"] > 0
    assert found["entries at the end"] <= CLIENTS * (PEOPLE_PER_CLIENT + 1) * 3
    assert found["growth in per cent"] < 25
