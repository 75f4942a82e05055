"""Time several functions in turns, so that changes of the machine's load affect all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """Duration of one call in seconds."""

    wall: float
    cpu: float  # of all threads of this process


def take_turns(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Turn]]:
    """Call every function once per round."""
    turns: dict[str, list[Turn]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            do()
            turns[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return turns


def median(turns: Sequence[Turn]) -> Turn:
    """Median durations, by wall time and by CPU time."""
    return Turn(statistics.median(turn.wall for turn in turns), statistics.median(turn.cpu for turn in turns))


def ratio(turns: Sequence[Turn], to: Sequence[Turn]) -> Turn:
    """Median over the rounds of the ratio of two durations, by wall time and by CPU time."""
    return median([Turn(a.wall / b.wall, a.cpu / b.cpu) for a, b in zip(turns, to, strict=True)])
