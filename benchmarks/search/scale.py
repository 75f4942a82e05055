"""Large galleries: exact search against bare faiss, approximate search against exact search, and start-up time.

    python -m benchmarks.search.scale [--only exact|approximate] [--kind ivf_sq8] [--rows N] [--dim D] [--json]

exact: `GalleryIndex.search` and its IndexFlatIP of faiss alone, with the same settings, in turns, over 100,000 x 1,536.
approximate: 1,000,000 x 512 with an index by `IndexMaintainer`: speed and recall@10 of new queries against exact search
in the same gallery, also with a filter for one camera of ten; write throughput of the database; start-up time without
and with a snapshot of the index.

The vectors are synthetic: persons with 20 crops each. Their variances along the principal components, between and
within persons, are those of embeddings of market751 by a half-width PAN_c. They contain no vector of a real crop.
"""

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import faiss
import numpy as np
import numpy.typing as npt
import typer

from pan_reid.schemas import IndexKind
from service.core.models import NewEntry
from service.core.types import Vectors
from service.galleries.catalog import GalleryCatalog
from service.galleries.commands import CreateGallery
from service.galleries.management import Galleries
from service.index.gallery_index import GalleryIndex
from service.index.metadata import Filter
from service.observability.metrics import Metrics
from service.storage import entries as records
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer

_RANKS = (1, 8, 16, 32, 64, 128, 256, 512, 1536)  # ranks of principal components
_VARIANCE = (1, 0.753, 0.592, 0.354, 0.0674, 0.01315, 0.002845, 0.000603, 0.00005)  # variances over all crops
_WITHIN = (0.18, 0.226, 0.283, 0.443, 0.631, 0.770, 0.846, 0.908, 0.95)  # share of the variance within a person
_CROPS = 20
_QUERIES = 500
_CAMERAS = 10
_CHUNK = 20_000


class Crops:
    """Unit vectors of crops of synthetic persons."""

    def __init__(self, persons: int, dim: int) -> None:
        self._rng = np.random.default_rng(0)
        at = np.log(np.arange(1, dim + 1))
        variance = np.exp(np.interp(at, np.log(_RANKS), np.log(_VARIANCE)))
        within = np.interp(at, np.log(_RANKS), _WITHIN)
        self._spread = np.sqrt(variance * within).astype(np.float32)
        self._persons = self._normal(persons, dim) * np.sqrt(variance * (1 - within)).astype(np.float32)

    def some(self, count: int) -> Vectors:
        """(count, D)."""
        who = self._rng.integers(0, len(self._persons), count)
        vectors = self._persons[who] + self._normal(count, len(self._spread)) * self._spread
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _normal(self, count: int, dim: int) -> npt.NDArray[np.float32]:
        return self._rng.standard_normal((count, dim), dtype=np.float32)


def milliseconds(call: Callable[[int], object], times: int) -> float:
    """Median duration of calls with the arguments 0, 1, ..."""
    seconds = []
    for number in range(times):
        started = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 2)


def exact(rows: int, dim: int) -> dict[str, Any]:
    """Durations of searches in a gallery and in bare faiss, in turns."""
    crops = Crops(rows // _CROPS, dim)
    gallery = GalleryIndex(dim)
    for start in range(0, rows, _CHUNK):
        vectors = crops.some(min(_CHUNK, rows - start))
        ids = range(start + 1, start + 1 + len(vectors))
        gallery.add(ids, [NewEntry(camera_id=f"c{entry % _CAMERAS}") for entry in ids], vectors)
    # Shares the memory: the address of a copy changes the speed by up to a quarter.
    bare = gallery.segment.exact._faiss
    queries = crops.some(32)
    found: dict[str, Any] = {"rows": rows, "dim": dim}
    for batch, threads in ((1, 1), (32, faiss.omp_get_max_threads())):
        some = list(queries[:batch, None])

        def alone(_: int, threads: int = threads, batch: int = batch) -> None:
            faiss.omp_set_num_threads(threads)
            bare.search(queries[:batch], 10)

        def ours(_: int, some: list[Vectors] = some) -> None:
            gallery.search(some, 10, Filter())

        def filtered(_: int, some: list[Vectors] = some) -> None:
            gallery.search(some, 10, Filter(cameras=frozenset({"c3"})))

        turns = [(milliseconds(alone, 3), milliseconds(ours, 3), milliseconds(filtered, 3)) for _ in range(7)]
        of_bare, of_ours, of_filtered = (statistics.median(turn[at] for turn in turns) for at in range(3))
        found[f"batch {batch}"] = {
            "bare faiss ms": of_bare,
            "gallery ms": of_ours,
            "ratio": round(of_ours / of_bare, 3),
            "one camera of ten ms": of_filtered,
            "one camera of ten, ratio": round(of_filtered / of_ours, 2),
        }
    return found


def fill_database(folder: Path, rows: int, dim: int, crops: Crops, kind: IndexKind) -> float:
    """A database with one gallery, and the write throughput in vectors per second, with a commit per 4,096 vectors."""
    database, galleries, _ = opened(folder, dim)
    asyncio.run(Galleries(database, galleries).create(CreateGallery("benchmark", "lobby", index_kind=kind)))
    row = galleries.find("lobby").row
    seconds = 0.0
    for start in range(0, rows, 4096):
        vectors = crops.some(min(4096, rows - start))
        known = [NewEntry(f"p{n // _CROPS}", f"c{n % _CAMERAS}", n) for n in range(start, start + len(vectors))]
        started = time.perf_counter()
        database.submit_write(
            partial(records.insert_entries, gallery_id=row.id, entries=known, vectors=vectors)
        ).result()
        seconds += time.perf_counter() - started
    database.close()
    return rows / seconds


def opened(folder: Path, dim: int) -> tuple[Database, GalleryCatalog, Metrics]:
    """A database and its catalogue, without loaded galleries."""
    metrics = Metrics()
    database = Database(folder / "pan.sqlite3", metrics)
    return database, GalleryCatalog(database, "b" * 64, dim, metrics), metrics


def approximate(rows: int, dim: int, kind: IndexKind) -> dict[str, Any]:
    """Fill a database, start, train the index and compare; then start again from the snapshot."""
    crops = Crops(rows // _CROPS, dim)
    found: dict[str, Any] = {"rows": rows, "dim": dim, "kind": kind}
    with TemporaryDirectory() as name:
        folder = Path(name)
        found["entries kept a second"] = round(fill_database(folder, rows, dim, crops, kind))
        for again in (False, True):
            database, galleries, metrics = opened(folder, dim)
            started = time.perf_counter()
            gc.disable()  # as in the server
            asyncio.run(galleries.load())
            gc.enable()
            gallery = galleries.find("lobby").memory
            query = crops.some(1)
            gallery.search([query], 10, Filter())
            found["start s, again" if again else "start s"] = round(time.perf_counter() - started, 1)
            if not again:
                queries = crops.some(_QUERIES)
                found["exact"] = measured(gallery, queries, Filter())
                truth = {where: answers(gallery, queries, where) for where in (Filter(), _ONE_CAMERA)}
            started = time.perf_counter()
            upkeep = IndexMaintainer(database, galleries, folder / "snapshots", metrics)
            while upkeep.run_once(galleries.find("lobby")):
                pass
            found["index restored s" if again else "index trained s"] = round(time.perf_counter() - started, 1)
            database.close()
        index = gallery.segment.ann
        found["index"] = index.kind if index is not None else "flat"
        for title, where in (("approximate", Filter()), ("one camera of ten", _ONE_CAMERA)):
            found[title] = measured(gallery, queries, where)
            hits = [len(a & b) for a, b in zip(answers(gallery, queries, where), truth[where], strict=True)]
            found[title]["recall@10"] = round(sum(hits) / (10 * len(hits)), 4)
        for batch in ("ms", "ms a query in 32"):
            found[f"times as fast, {batch}"] = round(found["exact"][batch] / found["approximate"][batch], 1)
            found[f"cost of the filter, {batch}"] = round(
                found["one camera of ten"][batch] / found["approximate"][batch], 2
            )
    return found


_ONE_CAMERA = Filter(cameras=frozenset({"c3"}))


def measured(gallery: GalleryIndex, queries: Vectors, where: Filter) -> dict[str, Any]:
    """Durations of searches with 1 and with 32 queries."""

    def one(number: int) -> None:
        gallery.search([queries[number : number + 1]], 10, where)

    def many(number: int) -> None:
        gallery.search(list(queries[32 * number : 32 * number + 32, None]), 10, where)

    return {"ms": milliseconds(one, 50), "ms a query in 32": round(milliseconds(many, 10) / 32, 3)}


def answers(gallery: GalleryIndex, queries: Vectors, where: Filter) -> list[set[int]]:
    """The ten hits of each query."""
    found = []
    for start in range(0, len(queries), 32):
        found += gallery.search(list(queries[start : start + 32, None]), 10, where)
    return [{hit.entry_id for hit in hits} for hits in found]


def main(
    only: Annotated[Literal["exact", "approximate"] | None, typer.Option()] = None,
    kind: Annotated[IndexKind, typer.Option(help="Kind of the approximate index.")] = "auto",
    rows: Annotated[int | None, typer.Option()] = None,
    dim: Annotated[int | None, typer.Option()] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure large galleries."""
    found: dict[str, Any] = {}
    if only in (None, "exact"):
        found["exact"] = exact(rows or 100_000, dim or 1536)
    if only in (None, "approximate"):
        found["approximate"] = approximate(rows or 1_000_000, dim or 512, kind)
    if as_json:
        print(json.dumps(found))
        return
    for title, lines in found.items():
        print(title, *(f"  {name}: {value}" for name, value in lines.items()), sep="\n")


if __name__ == "__main__":
    typer.run(main)
