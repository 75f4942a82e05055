"""SIGKILL at random moments of enrolment and erasure, again and again over one data folder: is what was said true?

    python -m benchmarks.crash [--rounds 200] [--seed 0] [--json]

Each round starts the real server, compares all it holds with what its clients were told, lets them enrol, delete
entries, erase persons and delete galleries at once, and kills it within 0.3 s. Afterwards every acknowledged operation
must be there, nothing acknowledged as erased may be, and one whose answer was lost is there whole or not at all; a lost
enrolment is sent again with its Idempotency-Key, and then is there once. The scores of a search prove the vectors.
Exit status 1 where that does not hold. A killed process is not a power cut: the kernel still writes what it was given.
"""

import json
import signal
import sqlite3
import sys
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.served import Served
from bundle import PanError
from service.client import Client
from service.folder import DATABASE
from tests.service.bundles import DIM, write_bundle

WORKERS = 4
LONGEST = 0.3  # seconds from the first request to the kill
SHARED = "shared"  # the gallery that all clients write to at once
ENOUGH = 150  # entries of a client in a gallery, from which on it only erases there


class Violation(PanError):
    """The service holds something else than it said."""

    code = "violation"


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry as its client knows it; the id of a lost enrolment is learnt later."""

    person: str
    entry_id: int = field(compare=False, default=0)


Galleries = dict[str, dict[str, Kept]]  # gallery -> the entries' tags -> entries


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A request that can be sent again."""

    path: str
    key: str
    entries: list[dict[str, Any]]


def vector(tag: str) -> npt.NDArray[np.float32]:
    """The (DIM,) unit vector of the entry with this tag."""
    found = np.random.default_rng(zlib.crc32(tag.encode())).normal(size=DIM)
    return (found / np.linalg.norm(found)).astype(np.float32)


class Worker:
    """A client with entries of its own: what it was told, and what it asked last without getting an answer."""

    def __init__(self, number: int, seed: int) -> None:
        self._name = f"w{number}"
        self._random = np.random.default_rng((seed, number))
        self._count = 0
        self.told: Galleries = {SHARED: {}}
        self.asked: Galleries | None = None
        self._enrolment: Enrolment | None = None
        self.acknowledged: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.failure: Exception | None = None

    def work(self, http: httpx.Client) -> None:
        """Send request after request until the server is gone."""
        try:
            while True:
                self._step(http)
        except httpx.TransportError:
            return
        except Exception as error:
            self.failure = error

    def owns(self, gallery: str, tag: str) -> bool:
        """Whether an entry is this client's, by gallery or tag."""
        return gallery == self._name or tag.startswith(f"{self._name}.")

    def settle(self, found: Galleries, http: httpx.Client) -> None:
        """Compare with what the restarted server holds of this client. Raises Violation."""
        if found not in (self.told, self.asked):
            raise Violation(f"{self._name} was told {self.told}, asked last for {self.asked}; the service has {found}")
        if self.asked is not None:
            self.lost["carried out" if found == self.asked else "not carried out"] += 1
        if self._enrolment is not None and self.asked is not None:
            ids = self._send(http, self._enrolment)
            gallery = self._enrolment.path.split("/")[3]
            tags = [entry["attributes"]["tag"] for entry in self._enrolment.entries]
            again = {tag: Kept(self.asked[gallery][tag].person, id_) for tag, id_ in zip(tags, ids, strict=True)}
            if found == self.asked and [found[gallery][tag].entry_id for tag in tags] != ids:
                raise Violation(f"a second request with the key {self._enrolment.key} was answered with other entries")
            found = {**found, gallery: {**found.get(gallery, {}), **again}}
        self.told, self.asked, self._enrolment = found, None, None

    def _step(self, http: httpx.Client) -> None:
        gallery = SHARED if self._random.random() < 0.5 else self._name
        held = self.told.get(gallery)
        if held is None:
            self._ask(http, "create gallery", {**self.told, gallery: {}}, "POST", "/v1/galleries", {"name": gallery})
            return
        path = f"/v1/galleries/{gallery}"
        chance = self._random.random() + 0.5 * (len(held) > ENOUGH)
        if chance < 0.5 or not held:
            self._enrol(http, gallery, f"{path}/entries")
            return
        tag = str(self._random.choice(sorted(held)))
        if chance < 0.75:
            left = {other: kept for other, kept in held.items() if other != tag}
            path += f"/entries/{held[tag].entry_id}"
            self._ask(http, "delete entry", {**self.told, gallery: left}, "DELETE", path)
        elif chance < 0.9 or gallery == SHARED:
            left = {other: kept for other, kept in held.items() if kept.person != held[tag].person}
            path += f"/persons/{held[tag].person}"
            self._ask(http, "erase person", {**self.told, gallery: left}, "DELETE", path)
        else:
            rest = {name: entries for name, entries in self.told.items() if name != gallery}
            self._ask(http, "delete gallery", rest, "DELETE", path)

    def _enrol(self, http: httpx.Client, gallery: str, path: str) -> None:
        self._count += 1
        tags = [f"{self._name}.{self._count}.{place}" for place in range(int(self._random.integers(1, 9)))]
        new = {tag: Kept(f"{self._name}-{self._random.integers(10)}") for tag in tags}
        entries = [
            {"vector": vector(tag).tolist(), "person_id": kept.person, "attributes": {"tag": tag}}
            for tag, kept in new.items()
        ]
        self._enrolment = Enrolment(path, f"{self._name}.{self._count}", entries)
        self.asked = {**self.told, gallery: {**self.told[gallery], **new}}
        ids = self._send(http, self._enrolment)
        known = {tag: Kept(kept.person, id_) for (tag, kept), id_ in zip(new.items(), ids, strict=True)}
        self.told = {**self.told, gallery: {**self.told[gallery], **known}}
        self.asked = self._enrolment = None
        self.acknowledged["enrol"] += 1

    def _send(self, http: httpx.Client, enrolment: Enrolment) -> list[int]:
        headers = {"Idempotency-Key": enrolment.key}
        answer = http.post(enrolment.path, json={"entries": enrolment.entries}, headers=headers)
        if answer.status_code != 201:
            raise Violation(f"enrolment was answered {answer.status_code}: {answer.text}")
        return [result["entry_id"] for result in answer.json()["results"]]

    def _ask(
        self,
        http: httpx.Client,
        what: str,
        after: Galleries,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
    ) -> None:
        self.asked = after
        answer = http.request(method, path, json=body)
        if not answer.is_success:
            raise Violation(f"{what} was answered {answer.status_code}: {answer.text}")
        self.told, self.asked = after, None
        self.acknowledged[what] += 1


def held_by(url: str) -> Galleries:
    """All that a server holds, by gallery and tag. Raises Violation where a search does not agree with the list."""
    found: Galleries = {}
    query = vector("query")
    with Client(url) as client:
        for gallery in client.galleries():
            entries = list(client.entries(gallery.name))
            tags = {entry.entry_id: str(entry.attributes["tag"]) for entry in entries}
            found[gallery.name] = {
                tags[entry.entry_id]: Kept(str(entry.person_id), entry.entry_id) for entry in entries
            }
            if len(found[gallery.name]) != len(entries):
                raise Violation(f"gallery {gallery.name} holds an enrolment twice")
            hits = client.search_vector(gallery.name, query, top_k=5000).hits or []
            scores = {hit.entry_id: hit.score for hit in hits}
            if scores.keys() != tags.keys():
                raise Violation(f"a search in {gallery.name} finds {sorted(scores)}, the list has {sorted(tags)}")
            wrong = [entry for entry, tag in tags.items() if abs(scores[entry] - float(vector(tag) @ query)) > 1e-5]
            if wrong:
                raise Violation(f"the vectors of {wrong} in gallery {gallery.name} are not those that were enrolled")
    return found


def verify(url: str, workers: list[Worker]) -> None:
    """Compare all that a server holds with what every client was told. Raises Violation."""
    found = held_by(url)
    with httpx.Client(base_url=url, timeout=30) as http:
        for worker in workers:
            own = {
                gallery: {tag: kept for tag, kept in entries.items() if worker.owns(gallery, tag)}
                for gallery, entries in found.items()
                if gallery == SHARED or worker.owns(gallery, "")
            }
            worker.settle(own, http)
        owned = sum(len(entries) for worker in workers for entries in worker.told.values())
    if owned != sum(len(entries) for entries in held_by(url).values()):
        raise Violation("the service holds entries that nobody enrolled")


def play(folder: Path, rounds: int, seed: int, progress: Console) -> dict[str, Any]:
    """Kill `rounds` servers in a folder. Returns what was acknowledged and lost; raises Violation."""
    bundle, data, log = write_bundle(folder / "bundle"), folder / "data", folder / "log"
    random = np.random.default_rng(seed)
    workers = [Worker(number, seed) for number in range(WORKERS)]
    server = Served(bundle, data, log)
    with Client(server.url) as client:
        client.create_gallery(SHARED)
    try:
        for _ in track(range(rounds), "killing", console=progress, disable=not progress.is_terminal):
            with httpx.Client(base_url=server.url, timeout=30) as http:
                threads = [threading.Thread(target=worker.work, args=(http,)) for worker in workers]
                for thread in threads:
                    thread.start()
                time.sleep(random.uniform(0.0, LONGEST))
                server.stop(signal.SIGKILL)
                for thread in threads:
                    thread.join()
            if failures := [worker.failure for worker in workers if worker.failure is not None]:
                raise failures[0]
            server = Served(bundle, data, log)
            verify(server.url, workers)
    finally:
        if server.running:
            server.stop()
    with sqlite3.connect(data / DATABASE) as database:
        integrity = database.execute("PRAGMA integrity_check").fetchone()[0]
    database.close()
    if integrity != "ok":
        raise Violation(f"SQLite finds the database damaged: {integrity}")
    return {
        "rounds": rounds,
        "seed": seed,
        "acknowledged": dict(sum((worker.acknowledged for worker in workers), Counter[str]())),
        "answers lost": dict(sum((worker.lost for worker in workers), Counter[str]())),
        "entries at the end": sum(len(entries) for worker in workers for entries in worker.told.values()),
    }


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 200,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Kill the server again and again, and compare what it holds with what it said."""
    console = Console(stderr=True)
    with TemporaryDirectory() as folder:
        try:
            found = play(Path(folder), rounds, seed, console)
        except Violation as violation:
            console.print(f"error: {violation}", markup=False, soft_wrap=True)
            sys.exit(1)
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    typer.run(main)
