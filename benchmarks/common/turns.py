"""Several pieces of work timed in turns, so that they share the machine's mood."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds that one piece of work took once."""

    wall: float
    cpu: float  # of all threads of this process: what others took meanwhile is not in it


def take_turns(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Turn]]:
    """Do every piece of work once a round."""
    turns: dict[str, list[Turn]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            do()
            turns[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return turns


def median(turns: Sequence[Turn]) -> Turn:
    """Of the seconds by either clock."""
    return Turn(statistics.median(turn.wall for turn in turns), statistics.median(turn.cpu for turn in turns))


def ratio(turns: Sequence[Turn], to: Sequence[Turn]) -> Turn:
    """How many times as long as the other one it takes, by either clock: the median over the rounds."""
    return median([Turn(a.wall / b.wall, a.cpu / b.cpu) for a, b in zip(turns, to, strict=True)])
