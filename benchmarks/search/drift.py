"""Recall of an index while its gallery changes: new cameras, seasons and places, and deletion of old entries.

    python -m benchmarks.search.drift [--kind hnsw] [--json]
    python -m benchmarks.search.drift --checkpoint RUN --data DATA --data OTHER_DATA [--cache FILE.npz]

An index is trained on the first cameras. Then crops are enrolled in steps of up to 3,000; from the second season, the
oldest entries are deleted. `IndexMaintainer` runs after each step, as in the service. Every tenth crop is held out as a
query: recall@10 against brute force is measured for the newest group and for all entries, before and after maintenance,
and printed with the recall that the service reports.

With a checkpoint and data in Market-1501's layout, the vectors are embeddings of real crops: the cameras of the first
data set one by one, the first of them again in evening light (darker and redder), then the cameras of the other sets.
Otherwise they are synthetic: clusters of 20 in 40 dimensions. Cameras share 20 dimensions, seasons rotate these, and
another place shares none. The vectors are written to the cache file only.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pan_reid.schemas import IndexKind
from service.core.models import NewEntry
from service.core.types import Vectors
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.galleries.commands import CreateGallery
from service.galleries.management import Galleries, index_status
from service.index.metadata import Filter
from service.observability.metrics import Metrics
from service.storage import entries as records
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer
from training.checkpoint import load_checkpoint
from training.data import read_data
from training.embed import embed_crops, torch_embedder

_STEP = 3000
_TRAINING_CAMERAS = 3  # cameras in the training of the index
_QUERIES = 200
_MAX_CROPS = 2500  # crops of each camera
_SYNTHETIC_CROPS = 3300  # crops of each synthetic camera
_EVENING_LIGHT = np.array([0.45, 0.35, 0.3])  # of red, green and blue


@dataclass(frozen=True, slots=True)
class Group:
    """Crops of one step: (n, D) to enrol, (m, D) held out. `leaving`: the step deletes the oldest entries."""

    name: str
    vectors: Vectors
    unseen: Vectors
    leaving: bool


def group(name: str, vectors: Vectors, leaving: bool = False) -> Group:
    """Split off every tenth crop as a query."""
    unseen = np.arange(len(vectors)) % 10 == 0
    return Group(name, vectors[~unseen], vectors[unseen], leaving)


def made(dim: int) -> Iterator[Group]:
    """Clusters in subspaces."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(dim, 20 * 18)))
    parts = iter(np.split(basis.T, 18))
    common, turned, elsewhere = next(parts), next(parts), next(parts)

    def camera(name: str, shared: Vectors, leaving: bool = False) -> Group:
        persons = rng.normal(size=(_SYNTHETIC_CROPS // 20, 40))
        vectors = np.repeat(persons, 20, axis=0) + 0.5 * rng.normal(size=(_SYNTHETIC_CROPS, 40))
        vectors = rng.permutation(vectors) @ np.vstack([shared, next(parts)])
        return group(name, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), leaving)

    for number in range(1, 7):
        yield camera(f"camera {number}", common)
    for step in range(1, 4):
        angle = step * np.pi / 6
        yield camera(f"season {step}", np.cos(angle) * common + np.sin(angle) * turned, True)
    for number in range(1, 4):
        yield camera(f"elsewhere, camera {number}", elsewhere, True)


def embedded(checkpoint: Path, folders: list[Path], console: Console) -> Iterator[Group]:
    """Embeddings of real crops."""
    network, card = load_checkpoint(checkpoint)
    embed = torch_embedder(network, card.input)

    def evening(images: Any) -> Any:
        return embed((images * _EVENING_LIGHT).astype(np.uint8))

    for place, folder in enumerate(folders):
        data = read_data(folder)
        crops = [*data.train, *data.query, *data.gallery]
        cameras = sorted({crop.camera for crop in crops})
        looks = [("", camera, embed) for camera in cameras]
        if place == 0:
            looks += [(", evening", camera, evening) for camera in cameras[:_TRAINING_CAMERAS]]
        for light, camera, function in looks:
            own = [crop for crop in crops if crop.camera == camera]
            own = [own[at] for at in np.random.default_rng(0).permutation(len(own))[:_MAX_CROPS]]
            name = f"{data.name}, camera {camera}{light}"
            console.print(f"embedding {len(own)} crops: {name}")
            yield group(name, embed_crops(function, own, card.input), bool(light) or place > 0)


def cached(file: Path | None, groups: Iterator[Group]) -> list[Group]:
    """The groups, or those in the cache file of an earlier run."""
    if file is not None and file.exists():
        with np.load(file) as held:
            count = len(held.files) // 4
            return [
                Group(str(held[f"name{at}"]), held[f"vectors{at}"], held[f"unseen{at}"], bool(held[f"leaving{at}"]))
                for at in range(count)
            ]
    found = list(groups)
    if file is not None:
        arrays: dict[str, Any] = {
            f"{key}{at}": np.array(getattr(one, key)) for at, one in enumerate(found) for key in Group.__slots__
        }
        np.savez(file, **arrays)
    return found


class Place:
    """A gallery with its maintenance, and the expected vectors."""

    def __init__(self, folder: Path, kind: IndexKind, dim: int) -> None:
        metrics = Metrics()
        self.database = Database(folder / "pan.sqlite3", metrics)
        self.galleries = GalleryCatalog(self.database, "b" * 64, dim, metrics)
        self.upkeep = IndexMaintainer(self.database, self.galleries, folder / "snapshots", metrics)
        self.metrics = metrics
        asyncio.run(
            Galleries(self.database, self.galleries).create(CreateGallery("benchmark", "lobby", index_kind=kind))
        )
        self.ids = np.empty(0, np.int64)
        self.vectors = np.empty((0, dim), np.float32)

    @property
    def held(self) -> LoadedGallery:
        """The gallery."""
        return self.galleries.find("lobby")

    def enrol(self, vectors: Vectors) -> None:
        """Enrol crops."""
        known = [NewEntry() for _ in vectors]
        write = partial(records.insert_entries, gallery_id=self.held.row.id, entries=known, vectors=vectors)
        ids = self.database.submit_write(write).result()
        self.held.memory.add(ids, known, vectors)
        self.ids, self.vectors = np.concatenate([self.ids, ids]), np.vstack([self.vectors, vectors])

    def drop_oldest(self, count: int) -> None:
        """Delete entries in memory; the benchmark does not read the database again."""
        self.held.memory.remove(self.ids[:count].tolist())
        self.ids, self.vectors = self.ids[count:], self.vectors[count:]

    def run_once(self) -> tuple[list[str], float]:
        """Run the maintenance. Returns its actions in order, and its CPU time in seconds."""
        done: list[str] = []
        started = time.process_time()
        while True:
            before = self._counts()
            if not self.upkeep.run_once(self.held):
                return done, time.process_time() - started
            done += [name for name, count in self._counts().items() if count > before.get(name, 0.0)]

    def recall(self, queries: Vectors) -> float:
        """Recall of the ten nearest against brute force."""
        nearest = self.ids[np.argpartition(-(queries @ self.vectors.T), 10, axis=1)[:, :10]]
        found = [self.held.memory.search([query[None]], 10, Filter())[0] for query in queries]
        pairs = zip(found, nearest.tolist(), strict=True)
        hits = [len({hit.entry_id for hit in some} & set(true)) for some, true in pairs]
        return round(sum(hits) / nearest.size, 4)

    def _counts(self) -> dict[str, float]:
        samples = next(iter(self.metrics.upkeep_seconds.collect())).samples
        return {one.labels["done"]: one.value for one in samples if one.name.endswith("_count")}


def play(groups: list[Group], kind: IndexKind) -> list[dict[str, Any]]:
    """Run the steps. Returns the measurements after each."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    numbers = {one.name: number for number, one in enumerate(groups)}
    with TemporaryDirectory() as folder:
        place = Place(Path(folder), kind, groups[0].vectors.shape[1])
        steps: list[tuple[list[Group], int | None]] = [(groups[:_TRAINING_CAMERAS], None)]
        steps += [([one], start) for one in groups[_TRAINING_CAMERAS:] for start in range(0, len(one.vectors), _STEP)]
        of_rows = np.empty(0, np.int64)  # the group of each entry
        for own, start in steps:
            part = slice(None) if start is None else slice(start, start + _STEP)
            vectors = np.vstack([one.vectors[part] for one in own])
            place.enrol(vectors)
            of_rows = np.concatenate([of_rows, *(np.full(len(one.vectors[part]), numbers[one.name]) for one in own)])
            if own[-1].leaving:
                place.drop_oldest(len(vectors))
                of_rows = of_rows[len(vectors) :]
            newest = own[-1].unseen[:_QUERIES]
            # Queries for all entries: each group in proportion to its entries.
            shares = np.bincount(of_rows, minlength=len(groups)) / len(of_rows)
            unseen = [rng.permutation(one.unseen) for one in groups]
            every = np.vstack([some[: round(share * _QUERIES)] for some, share in zip(unseen, shares, strict=True)])
            before = place.recall(newest)
            done, seconds = place.run_once()
            now = index_status(place.held.memory)
            lines.append(
                {
                    "group": own[-1].name if len(own) == 1 else f"first {_TRAINING_CAMERAS} cameras",
                    "entries": len(place.ids),
                    "done": done,
                    "cpu_s": round(seconds, 1),
                    "exact": now.exact,
                    "shown": round(now.recall, 4),
                    "shown_newest": round(now.recall_recent, 4),
                    "unseen": place.recall(every),
                    "unseen_newest": place.recall(newest),
                    "unseen_newest_before": before,
                }
            )
        place.database.close()
    return lines


def main(
    kind: Annotated[IndexKind, typer.Option(help="Kind of the index.")] = "ivf_sq8",
    checkpoint: Annotated[Path | None, typer.Option(help="Run of the network that embeds the crops.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Folders in Market-1501's layout.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache file of the vectors.")] = None,
    dim: Annotated[int, typer.Option(help="Dimension of synthetic vectors.")] = 1536,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the recall of an index in a changing gallery."""
    console = Console(stderr=True)
    if (checkpoint is None) != (not data):
        raise typer.BadParameter("--checkpoint and --data go together")
    groups = cached(cache, made(dim) if checkpoint is None else embedded(checkpoint, data or [], console))
    lines = play(groups, kind)
    shown = [line for line in lines if not line["exact"]]
    apart = [abs(line["shown"] - line["unseen"]) for line in shown] or [0.0]
    found = {
        "kind": kind,
        "dim": groups[0].vectors.shape[1],
        "least recall of unseen queries": min(line["unseen"] for line in lines),
        "least recall of unseen queries of the newest group": min(
            min(line["unseen_newest"], line["unseen_newest_before"]) for line in lines
        ),
        "mean difference of what is shown": round(float(np.mean(apart)), 4),
        "greatest difference of what is shown": round(max(apart), 4),
        "trainings": sum(line["done"].count("trained") for line in lines),
        "steps searched exactly": len(lines) - len(shown),
        "steps": lines,
    }
    if as_json:
        print(json.dumps(found))
        return
    table = Table(*lines[0])
    for line in lines:
        table.add_row(*(" ".join(value) if isinstance(value, list) else str(value) for value in line.values()))
    Console().print(table)
    print("\n".join(f"{title}: {value}" for title, value in found.items() if title != "steps"))


if __name__ == "__main__":
    typer.run(main)
