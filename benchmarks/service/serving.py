"""Overhead of the service over its engine: throughput with eight clients, and latency of a search at low load.

    python -m benchmarks.service.serving [--bundle BUNDLE] [--entries 100000] [--index auto] [--rounds 5] \
        [--turn 5] [--json]

Throughput: the bare engine with full batches of the service's largest size and of eight; and eight clients in a closed
loop, one JPEG crop per request over REST with a binary response. Each runs for `--turn` seconds in turns. Latency: one
client searches by a crop repeatedly, in turns with the bare engine on one crop. The overhead of a request is its time
at the client minus the time of the engine for this crop (Server-Timing).

The bare engine runs in the benchmark's process and is loaded as in the service. The client runs there as well; the
report includes its CPU time, which the service lacks.
"""

import asyncio
import base64
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import httpx
import numpy as np
import orjson
import typer

from benchmarks.common.served import Served
from benchmarks.common.wire import Answer, Wire, post
from benchmarks.search.scale import Crops
from benchmarks.service.overload import CLIENTS, spread
from bundle import load_bundle, load_crop
from pan_reid.schemas import IndexKind
from service.batching.thread_priority import isolate_engine_driver
from service.core.settings import Settings
from service.inference.engine import Engine
from service.inference.engines.loader import load_engine
from tests.support.bundles import write_bundle
from tests.support.pictures import encode, person

T = TypeVar("T")

SEARCHES = 60  # per turn
_PART = re.compile(r"([a-z-]+);dur=([0-9.]+)")
_CHUNK = 1000


def crops_a_second(engine: Engine, batch: Any, seconds: float) -> float:
    """Throughput of the bare engine."""
    done, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        engine.embed(batch)
        done += len(batch)
    return done / took


async def as_the_service(work: Callable[[], T]) -> T:
    """Run a function on a thread like the engine thread of the service."""
    with ThreadPoolExecutor(1, initializer=isolate_engine_driver) as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


async def answers_a_second(wire: Wire, requests: list[bytes], seconds: float) -> float:
    """Throughput of the service in a closed loop."""
    done, started = 0, time.perf_counter()

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            answer = await wire.ask(requests[(number + done) % len(requests)])
            assert answer.status == 200, answer.body
            done += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return done / (time.perf_counter() - started)


async def throughput(
    engine: Engine, wire: Wire, batch: Any, requests: list[bytes], rounds: int, turn: float
) -> dict[str, Any]:
    """All throughputs, in turns."""
    await answers_a_second(wire, requests, turn / 2)
    await as_the_service(lambda: crops_a_second(engine, batch, turn / 2))
    full, eight, served, busy = [], [], [], []
    for _ in range(rounds):
        full.append(await as_the_service(lambda: crops_a_second(engine, batch, turn)))
        cpu = time.process_time()
        served.append(await answers_a_second(wire, requests, turn))
        busy.append((time.process_time() - cpu) / turn)
        eight.append(await as_the_service(lambda: crops_a_second(engine, batch[:CLIENTS], turn)))
    return {
        f"bare engine in batches of {len(batch)}, crops a second": round(statistics.median(full), 1),
        f"bare engine in batches of {CLIENTS}, crops a second": round(statistics.median(eight), 1),
        "service, crops a second": round(statistics.median(served), 1),
        f"of batches of {len(batch)}": ratios(served, full),
        f"of batches of {CLIENTS}": ratios(served, eight),
        "client's share of a processor": round(statistics.median(busy), 3),
    }


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Ratios of consecutive turns: minimum, median, maximum."""
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {name: round(of(found), 3) for name, of in (("least", min), ("median", statistics.median), ("most", max))}


async def latency(engine: Engine, wire: Wire, crop: Any, requests: list[bytes], rounds: int) -> dict[str, Any]:
    """Latencies of service and engine in turns, in ms."""
    bare: list[float] = []
    asked: list[float] = []
    timings: list[dict[str, float]] = []
    for _ in range(rounds):
        bare += await as_the_service(lambda: [timed(lambda: engine.embed(crop)) for _ in range(SEARCHES)])
        for number in range(SEARCHES):
            started = time.perf_counter()
            answer = await wire.ask(requests[number % len(requests)])
            asked.append(time.perf_counter() - started)
            assert answer.status == 200, answer.body
            timings.append(parts(answer))
    return {
        "bare engine on one crop": milliseconds(bare),
        "search by one crop": milliseconds(asked),
        "added by the service": milliseconds(
            [seconds - part["engine"] for seconds, part in zip(asked, timings, strict=True)]
        ),
        "parts": {name: milliseconds([part[name] for part in timings]) for name in timings[0]},
    }


def parts(answer: Answer) -> dict[str, float]:
    """Durations in seconds from the Server-Timing header, by name."""
    return {name: float(number) / 1000 for name, number in _PART.findall(answer.header("server-timing") or "")}


def timed(call: Callable[[], object]) -> float:
    """Duration of one call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Percentiles."""
    return {name: round(1000 * value, 2) for name, value in spread(seconds, 6).items()}


def fill(url: str, entries: int, dim: int, index: IndexKind) -> dict[str, Any]:
    """Enrol synthetic vectors, and wait until the index of the gallery is built."""
    crops = Crops(max(1, entries // 20), dim)

    def lines() -> Iterator[bytes]:
        for start in range(0, entries, _CHUNK):
            yield b"".join(
                orjson.dumps({"vector": base64.b64encode(vector.tobytes()).decode()}) + b"\n"
                for vector in crops.some(min(_CHUNK, entries - start))
            )

    with httpx.Client(base_url=url, timeout=600) as http:
        http.post("/v1/galleries", json={"name": "town", "index": index}).raise_for_status()
        kind = {"Content-Type": "application/x-ndjson"}
        answer = http.post("/v1/galleries/town/entries/stream", content=lines(), headers=kind)
        assert orjson.loads(answer.content.splitlines()[-1]) == {"enrolled": entries, "failed": 0}
        end = time.monotonic() + 300
        settled: dict[str, Any] = {}
        while time.monotonic() < end and (now := http.get("/v1/galleries/town").json()["index_now"]) != settled:
            settled = now  # the index is built in the background; two equal states mean that it is complete
            time.sleep(10)
        return settled


async def play(folder: Path, bundle: Path, entries: int, index: IndexKind, rounds: int, turn: float) -> dict[str, Any]:
    """Measure throughput and latency with one server."""
    settings = Settings(bundle=bundle, data=folder / "bare")
    settings.data.mkdir()
    engine = load_engine(load_bundle(bundle), settings).engine
    pictures = [encode(person(number), "JPEG", quality=90) for number in range(64)]
    batch = np.stack([load_crop(picture, engine.height, engine.width) for picture in pictures[: settings.max_batch]])
    server = Served(bundle, folder / "data", folder / "log")
    try:
        wire = Wire(server.url)
        binary = {"content_type": "image/jpeg", "accept": "application/octet-stream"}
        embeddings = [post(server.url, "/v1/embeddings", picture, **binary) for picture in pictures]
        found = await throughput(engine, wire, batch, embeddings, rounds, turn)
        index_now = await asyncio.to_thread(fill, server.url, entries, engine.dim, index)
        path = "/v1/galleries/town/search"
        searches = [post(server.url, path, picture, content_type="image/jpeg") for picture in pictures]
        await latency(engine, wire, batch[:1], searches, 1)
        waited = await latency(engine, wire, batch[:1], searches, rounds)
        wire.close()
    finally:
        server.stop()
    return {"throughput": found, "latency": {"entries": entries, "index": index_now, **waited}}


def main(
    bundle: Annotated[Path | None, typer.Option(help="Bundle; default: a tiny one with a trivial engine.")] = None,
    entries: Annotated[int, typer.Option(min=1)] = 100_000,
    index: Annotated[IndexKind, typer.Option(help="Kind of the index.")] = "auto",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    turn: Annotated[
        float, typer.Option(min=0.1, help="Seconds per turn; at least ten times the duration of a full batch.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the service with its engine."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        used = bundle or write_bundle(folder / "bundle")
        found = asyncio.run(play(folder, used, entries, index, rounds, turn))
    if as_json:
        print(json.dumps(found))
        return
    for title, figures in found.items():
        print(title, *(f"  {name}: {value}" for name, value in figures.items()), sep="\n")


if __name__ == "__main__":
    typer.run(main)
