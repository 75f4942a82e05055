"""SIGKILL at random times during training, compaction and snapshots of an index, repeatedly on one data folder.

    python -m benchmarks.crash.index [--rounds 200] [--seed 0] [--json]

Each round, a process opens the data folder and maintains the index of its gallery (a graph, or inverted lists). It
enrols and deletes entries, so that the index is trained, extended, compacted and saved repeatedly, and is killed within
a second. Then the folder is reopened: acknowledged entries must exist, searches must not return deleted entries, and
must agree with brute force over the database. Otherwise the exit status is 1.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.crash.report import Violation, report
from pan_reid.schemas import IndexKind
from service.core.models import NewEntry
from service.core.types import Vectors
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.galleries.commands import CreateGallery
from service.galleries.management import Galleries
from service.index.metadata import Filter
from service.observability.metrics import Metrics
from service.storage import entries as records
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer

DIM = 16
_INITIAL_ENTRIES = 3000  # enough for an index, also after the deletion of a quarter
_QUERIES = 20
_MIN_RECALL = 0.95  # the minimum for so few queries
_MAX_DELAY = 1.0  # seconds from the start of the work to the SIGKILL
_PERSONS = 100


def vectors_of(ids: list[int]) -> Vectors:
    """(n, DIM) unit vectors, by number."""
    centres = np.random.default_rng(1).normal(size=(_PERSONS, DIM))
    noise = np.stack([np.random.default_rng(id_).normal(size=DIM) for id_ in ids])
    vectors = centres[np.asarray(ids) % _PERSONS] + 0.5 * noise
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


class Place:
    """A data folder with one gallery and its index maintainer."""

    def __init__(self, folder: Path, kind: IndexKind) -> None:
        self.metrics = Metrics()
        self.database = Database(folder / "pan.sqlite3", self.metrics)
        self.galleries = GalleryCatalog(self.database, "c" * 64, DIM, self.metrics)
        self.upkeep = IndexMaintainer(self.database, self.galleries, folder / "snapshots", self.metrics)
        asyncio.run(self._open(kind))

    async def _open(self, kind: IndexKind) -> None:
        await self.galleries.load()
        if not self.galleries.all():
            await Galleries(self.database, self.galleries).create(CreateGallery("crash", "g", index_kind=kind))

    @property
    def held(self) -> LoadedGallery:
        """The gallery."""
        return self.galleries.find("g")

    def enrol(self, ids: list[int]) -> None:
        """Enrol entries by number; the person id is the number."""
        entries = [NewEntry(str(id_)) for id_ in ids]
        vectors = vectors_of(ids)
        own = self.database.submit_write(
            lambda db: records.insert_entries(db, self.held.row.id, entries, vectors)
        ).result()
        self.held.memory.add(own, entries, vectors)

    def delete(self, persons: list[int]) -> None:
        """Delete the entries with these numbers."""

        def apply(db: Any) -> list[int]:
            return [entry for one in persons for entry in records.delete_person(db, self.held.row.id, str(one))]

        self.held.memory.remove(self.database.submit_write(apply).result())

    def there(self) -> dict[int, int]:
        """Entry ids in the database, by number."""
        rows = self.database.submit_read(
            lambda db: db.execute("SELECT person_id, id FROM entries ORDER BY id").fetchall()
        ).result()
        return {int(row[0]): row[1] for row in rows}


def work(folder: Path, kind: IndexKind, first: int, seed: int) -> None:
    """Enrol and delete from number `first` on until killed. Prints each step before and after."""
    place = Place(folder, kind)
    random = np.random.default_rng(seed)
    there = sorted(place.there())

    def report(what: str, ids: list[int]) -> None:
        print(what, *ids, flush=True)

    report("ready", [])
    while True:
        if len(there) < _INITIAL_ENTRIES or random.random() < 0.6:
            ids = list(range(first, first + max(200, _INITIAL_ENTRIES - len(there))))
            first = ids[-1] + 1
            report("enrol", ids)
            place.enrol(ids)
            there += ids
        else:
            chosen = set(random.choice(there, len(there) // 4, replace=False).tolist())
            report("delete", sorted(chosen))
            place.delete(sorted(chosen))
            there = [id_ for id_ in there if id_ not in chosen]
        report("done", [])
        place.upkeep.run_once(place.held)


def look(folder: Path, kind: IndexKind, sure: set[int], asked: tuple[str, set[int]]) -> tuple[set[int], str]:
    """Compare the folder with the acknowledged writes after a restart. Raises Violation."""
    place = Place(folder, kind)
    try:
        there = place.there()
        what, ids = asked
        allowed = [sure, sure | ids if what == "enrol" else sure - ids]
        if set(there) not in allowed:
            raise Violation(f"{len(sure)} entries were acknowledged, {len(there)} exist")
        done = "nothing"
        while place.upkeep.run_once(place.held):
            samples = next(iter(place.metrics.upkeep_seconds.collect())).samples
            done = samples[0].labels["done"] if done == "nothing" else done
        numbers = sorted(there)
        vectors, hit = vectors_of(numbers), 0
        queries = vectors_of([10**6 + number for number in range(_QUERIES)])
        for query, scores in zip(queries, queries @ vectors.T, strict=True):
            found = {one.entry_id for one in place.held.memory.search([query[None]], 10, Filter())[0]}
            if not found <= set(there.values()):
                raise Violation("a search finds deleted entries")
            hit += len(found & {there[numbers[row]] for row in np.argsort(-scores)[:10]})
        if hit < _MIN_RECALL * 10 * _QUERIES:
            raise Violation(f"a search finds {hit} of {10 * _QUERIES} nearest entries")
        return set(there), done
    finally:
        place.database.close()


def play(folder: Path, rounds: int, seed: int, progress: Console) -> dict[str, Any]:
    """Kill `rounds` processes for each kind of index. Returns the counts; raises Violation."""
    random = np.random.default_rng(seed)
    seen: dict[str, Any] = {"rounds": rounds, "seed": seed}
    kinds: tuple[IndexKind, ...] = ("hnsw", "ivf_sq8")
    for kind in kinds:
        data = folder / kind
        data.mkdir()
        sure = set(range(_INITIAL_ENTRIES))
        place = Place(data, kind)
        place.enrol(sorted(sure))
        place.database.close()
        acknowledged, first_done, last = 0, Counter[str](), _INITIAL_ENTRIES
        for number in track(range(rounds // 2), kind, console=progress, disable=not progress.is_terminal):
            command = [sys.executable, "-m", __spec__.name, "--work", f"{data}:{kind}:{last}:{seed + number}"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise Violation("the folder could not be reopened")
            time.sleep(random.uniform(0.0, _MAX_DELAY))
            process.kill()
            asked: tuple[str, set[int]] = ("", set())
            for line in process.stdout.read().splitlines(keepends=True):
                what, *ids = line.split()
                if what != "done" and line.endswith("\n"):
                    asked = (what, {int(id_) for id_ in ids})
                    last = max(last, *asked[1]) + 1 if what == "enrol" else last
                elif what == "done" and asked[0]:
                    sure = sure | asked[1] if asked[0] == "enrol" else sure - asked[1]
                    acknowledged, asked = acknowledged + 1, ("", set())
            process.wait()
            process.stdout.close()
            sure, done = look(data, kind, sure, asked)
            first_done[done] += 1
        seen[kind] = {"acknowledged": acknowledged, "first after a kill": dict(first_done), "entries": len(sure)}
    return seen


def main(
    rounds: Annotated[int, typer.Option(min=2)] = 200,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    work_at: Annotated[str | None, typer.Option("--work", hidden=True)] = None,
) -> None:
    """Kill the index maintenance repeatedly."""
    if work_at is not None:
        folder, kind, first, own_seed = work_at.rsplit(":", 3)
        work(Path(folder), kind, int(first), int(own_seed))  # type: ignore[arg-type]
    report(play, rounds, seed, as_json)


if __name__ == "__main__":
    typer.run(main)
