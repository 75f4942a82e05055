"""Overload: ten times the capacity of the service for a minute. Accepted requests must meet their deadline.

    python -m benchmarks.service.overload [--seconds 60] [--times 10] [--bundle BUNDLE] [--json]

The capacity is measured first, with a closed loop on the same server. Then an open loop starts requests at `times` that
rate. Each must get 200 within the deadline, 429 with Retry-After, or 504 at the deadline, by the client's clock, and
the memory of the server must not grow. Otherwise the exit status is 1.

Without a bundle, the model is tiny and the image is slow to decode; with a bundle, the image is a crop and the engine
dominates. Client and server share the machine, so the report includes the lateness of the client's event loop and its
CPU time.
"""

import asyncio
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from PIL import Image

from benchmarks.common.served import MIB, Served, watch
from benchmarks.common.wire import Wire, get, post, watch_lag
from tests.support.bundles import write_bundle
from tests.support.pictures import encode, person

DEADLINE = 2  # seconds; given to the server as its --request-timeout
GRACE = 0.25  # additional seconds, because the client shares the machine
MAX_GROWTH = 64 * MIB  # allowed growth of the server's memory
CLIENTS = 8  # in the closed loop


@dataclass(slots=True)
class Tally:
    """Results of the requests."""

    sent: int = 0
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by status
    late: int = 0  # responses after deadline and grace
    wrong: Counter[str] = field(default_factory=Counter)  # invalid responses

    def answered(self, status: int = 200) -> list[float]:
        """Durations of the responses with this status, in seconds."""
        return self.seconds.get(status, [])


async def send(wire: Wire, request: bytes, tally: Tally) -> None:
    """A request to embed one crop."""
    tally.sent += 1
    started = time.monotonic()
    try:
        answer = await wire.ask(request)
    except OSError as error:
        tally.wrong[f"{type(error).__name__}: {error}"] += 1
        return
    seconds = time.monotonic() - started
    tally.seconds.setdefault(answer.status, []).append(seconds)
    tally.late += seconds > DEADLINE + GRACE
    if answer.status == 429 and not (answer.header("Retry-After") or "").isdecimal():
        tally.wrong["429 without Retry-After"] += 1
    if answer.status not in (200, 429, 504):
        tally.wrong[f"{answer.status}: {answer.body!r}"] += 1


async def capacity(wire: Wire, request: bytes, seconds: float) -> float:
    """Throughput of a closed loop with a few clients, in requests per second."""
    tally, end = Tally(), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await send(wire, request, tally)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(tally.answered()) / seconds


async def flood(wire: Wire, request: bytes, rate: float, seconds: float) -> Tally:
    """An open loop with `rate` requests per second."""
    tally, started, begun = Tally(), time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while (elapsed := time.monotonic() - started) < seconds:
            for _ in range(int(rate * elapsed) - begun):
                group.create_task(send(wire, request, tally))
                begun += 1
            await asyncio.sleep(0.005)
    return tally


async def play(folder: Path, bundle: Path | None, seconds: float, times: float) -> dict[str, Any]:
    """Measure the capacity, then send `times` as many requests. `faults` in the result is empty on success."""
    # A small PNG that is slow to decode loads the server and not the client.
    picture = encode(Image.new("RGB", (2000, 2000))) if bundle is None else encode(person(1), "JPEG", quality=90)
    bundle = bundle or write_bundle(folder / "bundle")
    server = Served(bundle, folder / "data", folder / "log")
    wire, request = _to(server, picture)
    await capacity(wire, request, 0.5)
    able = await capacity(wire, request, max(2.0, seconds / 10))
    wire.close()
    server.stop()
    queue = max(CLIENTS, math.ceil(able * DEADLINE / 2))  # served in half of the deadline
    options = ("--request-timeout", str(DEADLINE), "--max-queue", str(queue), "--max-images", "8")
    server = Served(bundle, folder / "data", folder / "log", *options)
    wire, request = _to(server, picture)
    await capacity(wire, request, 0.5)
    memory: list[int] = []
    lags: list[float] = []
    watching = [asyncio.create_task(watch(server, memory, 0.2)), asyncio.create_task(watch_lag(lags))]
    busy, started = time.process_time(), time.monotonic()
    tally = await flood(wire, request, times * able, seconds)
    took = time.monotonic() - started
    busy = time.process_time() - busy
    for task in watching:
        task.cancel()
    ready = (await wire.ask(get(server.url, "/readyz"))).status
    wire.close()
    server.stop()
    quarter = len(memory) // 4
    growth = statistics.median(memory[-quarter:]) - statistics.median(memory[quarter : 2 * quarter])
    faults = tally.wrong
    faults["late"] += tally.late
    faults["not ready afterwards"] += ready != 200
    faults["memory grew"] += growth > MAX_GROWTH
    faults["nothing refused"] += not tally.answered(429)
    return {
        "capacity": round(able, 1),
        "queue": queue,
        "seconds": seconds,
        "sent": tally.sent,
        "answers": {status: len(times) for status, times in tally.seconds.items()},
        "answered a second": round(len(tally.answered()) / took, 1),
        "of the capacity": round(len(tally.answered()) / took / able, 2),
        "seconds to an answer": spread(tally.answered()),
        "seconds to a refusal": spread(tally.answered(429)),
        "memory grew by MiB": round(growth / MIB, 1),
        "client's event loop late by": spread(lags),
        "client's share of a processor": round(busy / took, 2),
        "faults": dict(+faults),
    }


def spread(seconds: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Percentiles."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {f"p{p}": round(ordered[last * p // 100], digits) for p in (50, 99, 100)} if ordered else {}


def _to(server: Served, picture: bytes) -> tuple[Wire, bytes]:
    return Wire(server.url), post(server.url, "/v1/embeddings", picture, content_type="image/jpeg")


def main(
    seconds: Annotated[float, typer.Option(min=5)] = 60.0,
    times: Annotated[float, typer.Option(min=2)] = 10.0,
    bundle: Annotated[Path | None, typer.Option(help="Bundle; default: a tiny one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Overload a server."""
    with TemporaryDirectory() as folder:
        found = asyncio.run(play(Path(folder), bundle, seconds, times))
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    typer.run(main)
