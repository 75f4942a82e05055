"""Throughput of durable enrolment of vectors: over REST as a stream and in requests of 256, and in bare SQLite.

    python -m benchmarks.service.enrolment [--entries 20000] [--dim 512] [--rounds 3] [--folder /var/tmp] [--json]

Vectors are float32 in base64, each with a person and a camera. The service runs in a subprocess. Bodies are made before
the measurement, which ends when the last entry is on disk. Bare SQLite writes the same vectors to one table with the
pragmas of the service and 256 rows per commit. The methods run in turns; each round begins with empty galleries.
"""

import base64
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import numpy as np
import numpy.typing as npt
import orjson
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common.served import Served
from tests.support.bundles import write_bundle

BATCH = 256  # maximum per request
_CHUNK = 2**16  # bytes


def lines_of(vectors: npt.NDArray[np.float32]) -> list[bytes]:
    """The API entry of each vector."""
    return [
        orjson.dumps(
            {
                "vector": base64.b64encode(vector.tobytes()).decode(),
                "person_id": f"p{place % 1000}",
                "camera_id": f"c{place % 8}",
            }
        )
        for place, vector in enumerate(vectors)
    ]


def streamed(http: httpx.Client, gallery: str, body: bytes) -> None:
    """Enrol by one stream."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), _CHUNK):
            yield body[start : start + _CHUNK]

    kind = {"Content-Type": "application/x-ndjson"}
    answer = http.post(f"/v1/galleries/{gallery}/entries/stream", content=pieces(), headers=kind)
    end = orjson.loads(answer.content.splitlines()[-1])
    assert end == {"enrolled": body.count(b"\n"), "failed": 0}, end


def posted(http: httpx.Client, gallery: str, bodies: list[bytes]) -> None:
    """Enrol by sequential requests, one per batch."""
    for body in bodies:
        answer = http.post(
            f"/v1/galleries/{gallery}/entries", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 201, answer.text


def bare(path: Path, vectors: npt.NDArray[np.float32]) -> None:
    """Insert into one SQLite table."""
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE vectors (entry_id INTEGER PRIMARY KEY, vector BLOB NOT NULL) STRICT")
    for start in range(0, len(vectors), BATCH):
        db.execute("BEGIN")
        db.executemany("INSERT INTO vectors (vector) VALUES (?)", ((row,) for row in vectors[start : start + BATCH]))
        db.execute("COMMIT")
    db.close()


def play(folder: Path, entries: int, dim: int, rounds: int) -> dict[str, list[float]]:
    """Entries per second of each method, per round."""
    vectors = np.random.default_rng(0).normal(size=(entries, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lines = lines_of(vectors)
    stream = b"".join(line + b"\n" for line in lines)
    batches = [b'{"entries":[' + b",".join(lines[start : start + BATCH]) + b"]}" for start in range(0, entries, BATCH)]
    rates: dict[str, list[float]] = {"streamed": [], "requests of 256": [], "bare SQLite": []}
    server = Served(write_bundle(folder / "bundle", dim=dim), folder / "data", folder / "log")
    try:
        with httpx.Client(base_url=server.url, timeout=600) as http:
            for number in range(rounds):
                path = folder / f"bare-{number}.sqlite3"
                ways: dict[str, Callable[[], None]] = {
                    "streamed": lambda: streamed(http, "streamed", stream),
                    "requests of 256": lambda: posted(http, "posted", batches),
                    "bare SQLite": lambda path=path: bare(path, vectors),  # type: ignore[misc]
                }
                for gallery in ("streamed", "posted"):
                    http.post("/v1/galleries", json={"name": gallery}).raise_for_status()
                for name, do in ways.items():
                    started = time.perf_counter()
                    do()
                    rates[name].append(entries / (time.perf_counter() - started))
                for gallery in ("streamed", "posted"):
                    http.delete(f"/v1/galleries/{gallery}").raise_for_status()
                path.unlink()
    finally:
        server.stop()
    return rates


def main(
    entries: Annotated[int, typer.Option(min=BATCH, help="Entries per method and round.")] = 20_000,
    dim: int = 512,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk to measure; a temporary folder is created in it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Enrol the same vectors by three methods."""
    with TemporaryDirectory(dir=folder) as made:
        rates = play(Path(made), entries, dim, rounds)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    if as_json:
        print(json.dumps({"entries": entries, "dim": dim, "a_second": rates, "median_a_second": medians}))
        return
    table = Table(title=f"durable entries a second: {entries:,} vectors of {dim}, median of {rounds} rounds")
    for column in ("", "entries/s", "of bare SQLite"):
        table.add_column(column, justify="right" if column else "left")
    for name, rate in medians.items():
        table.add_row(name, f"{rate:,.0f}", f"{rate / medians['bare SQLite']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
