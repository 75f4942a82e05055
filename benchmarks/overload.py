"""Ten times as many requests as the service can answer, for a minute: what is accepted is answered in time.

    python -m benchmarks.overload [--seconds 60] [--times 10] [--bundle BUNDLE] [--json]

Capacity is what a closed loop gets out of the same server just before. Then requests start at `times` that rate whether
or not others have been answered (an open loop). Each must be answered 200 within the deadline, 429 with Retry-After, or
504 at the deadline; the server's memory must stay flat. Exit status 1 where one of these does not hold.

Client and server share the machine, so the client takes part of the capacity that it measures.
"""

import asyncio
import json
import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import typer
from PIL import Image

from benchmarks.served import MIB, Served, watch
from tests.service.bundles import write_bundle

DEADLINE = 2  # seconds; given to the server as its --request-timeout
GRACE = 1.0  # seconds on top: the network, and a client that shares the machine
FLAT = 64 * MIB  # growth of the server's memory that is still called flat


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # by status
    seconds: list[float] = field(default_factory=list)  # of those answered 200
    late: int = 0  # answers that came after deadline and grace
    wrong: list[str] = field(default_factory=list)  # answers that should not have been given


def picture(pixels: int = 2000) -> bytes:
    """A PNG of a few kilobytes that takes long to decode: the server has work, and the client nearly none."""
    stream = BytesIO()
    Image.new("RGB", (pixels, pixels)).save(stream, "PNG")
    return stream.getvalue()


async def send(http: httpx.AsyncClient, image: bytes, tally: Tally) -> None:
    """One crop to be embedded."""
    tally.sent += 1
    started = time.monotonic()
    try:
        answer = await http.post("/v1/embeddings", content=image, headers={"Content-Type": "image/png"})
    except httpx.HTTPError as error:
        tally.wrong.append(f"{type(error).__name__}: {error}")
        return
    seconds = time.monotonic() - started
    tally.answers[str(answer.status_code)] += 1
    tally.late += seconds > DEADLINE + GRACE
    if answer.status_code == 200:
        tally.seconds.append(seconds)
    elif answer.status_code == 429:
        if not answer.headers.get("Retry-After", "").isdecimal():
            tally.wrong.append("429 without Retry-After")
    elif answer.status_code != 504:
        tally.wrong.append(f"{answer.status_code}: {answer.text}")


async def capacity(http: httpx.AsyncClient, image: bytes, seconds: float) -> float:
    """Requests a second that eight clients get answered, each of which waits for its answer."""
    tally, end = Tally(), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await send(http, image, tally)

    await asyncio.gather(*(client() for _ in range(8)))
    return tally.answers["200"] / seconds


async def flood(http: httpx.AsyncClient, image: bytes, rate: float, seconds: float) -> Tally:
    """`rate` requests a second, whatever becomes of them."""
    tally, started, begun = Tally(), time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while (elapsed := time.monotonic() - started) < seconds:
            for _ in range(int(rate * elapsed) - begun):
                group.create_task(send(http, image, tally))
                begun += 1
            await asyncio.sleep(0.005)
    return tally


def connected(server: Served) -> httpx.AsyncClient:
    """A client without a limit of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    return httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits)


async def play(folder: Path, bundle: Path, seconds: float, times: float) -> dict[str, Any]:
    """Measure the capacity, then ask for `times` as much. What was seen; `faults` is empty where all was well."""
    image = picture()
    server = Served(bundle, folder / "data", folder / "log")
    async with connected(server) as http:
        await capacity(http, image, 0.5)
        able = await capacity(http, image, max(2.0, seconds / 10))
    server.stop()
    queue = max(8, math.ceil(able * DEADLINE / 2))  # what can be answered in half of the deadline
    options = ("--request-timeout", str(DEADLINE), "--max-queue", str(queue), "--max-images", "8")
    server = Served(bundle, folder / "data", folder / "log", *options)
    samples: list[int] = []
    async with connected(server) as http:
        await capacity(http, image, 0.5)
        watching = asyncio.create_task(watch(server, samples, 0.2))
        tally = await flood(http, image, times * able, seconds)
        watching.cancel()
        ready = (await http.get("/readyz")).status_code
    server.stop()
    quarter = len(samples) // 4
    growth = statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter])
    faults = Counter(tally.wrong)
    faults["late"] += tally.late
    faults["not ready afterwards"] += ready != 200
    faults["memory grew"] += growth > FLAT
    faults["nothing refused"] += not tally.answers["429"]
    answered = sorted(tally.seconds)
    return {
        "capacity": round(able, 1),
        "queue": queue,
        "seconds": seconds,
        "sent": tally.sent,
        "answers": dict(tally.answers),
        "answered a second": round(len(answered) / seconds, 1),
        "seconds to an answer": {p: round(answered[len(answered) * p // 100], 3) for p in (50, 99)} if answered else {},
        "memory grew by MiB": round(growth / MIB, 1),
        "faults": dict(+faults),
    }


def main(
    seconds: Annotated[float, typer.Option(min=5)] = 60.0,
    times: Annotated[float, typer.Option(min=2)] = 10.0,
    bundle: Annotated[Path | None, typer.Option(help="In place of a tiny one: the engine then is the work.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask for more than there is."""
    with TemporaryDirectory() as folder:
        found = asyncio.run(play(Path(folder), bundle or write_bundle(Path(folder) / "bundle"), seconds, times))
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    typer.run(main)
