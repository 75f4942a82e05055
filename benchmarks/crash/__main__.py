"""SIGKILL at random times during enrolment and erasure, repeatedly on one data folder: are acknowledged writes kept?

    python -m benchmarks.crash [--rounds 200] [--seed 0] [--json]

Each round starts the server and compares its entries with the responses of earlier rounds. Clients concurrently enrol
vectors and stored images, delete entries, erase persons, purge expired entries and delete galleries, while a backup
runs. Server and backup are killed within 0.3 s.

After a kill, acknowledged writes must exist, and erased entries must not. An operation without response is complete or
absent; such an enrolment is repeated with its Idempotency-Key, and must then exist once. The scores of a search verify
the vectors. A backup file restores, or does not exist. Otherwise the exit status is 1. A killed process is not a power
failure: the kernel still writes its buffers.
"""

import multiprocessing
import signal
import sqlite3
import threading
import time
from collections import Counter
from io import BytesIO
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.common.served import Served
from benchmarks.crash.client import SHARED, Entries, KnownEntry, Worker, pixels, vector
from benchmarks.crash.report import Violation, report
from pan_reid import Client
from pan_reid.schemas import Entry
from service.storage.backup import BackupError, create_backup, restore_backup
from service.storage.data_dir import DATABASE
from tests.support.bundles import write_bundle

WORKERS = 4
MAX_DELAY = 0.3  # seconds from the first request to the kill
MAX_BACKUP_DELAY = 0.1
_MAX_DIFFERENCE = 12  # mean difference, in levels of 255, between a noise image and its stored JPEG


def list_entries(url: str) -> Entries:
    """All entries of a server, by gallery and tag. Raises Violation if a search disagrees with the list.

    A purge that was cut short is carried to its end first: until then a search knows less than the list.
    """
    found: Entries = {}
    query = vector("query")
    with Client(url) as client, httpx.Client(base_url=url, timeout=30) as http:
        for gallery in client.galleries():
            if gallery.retention_days is not None:
                client.purge(gallery.name)
                http.patch(f"/v1/galleries/{gallery.name}", json={"retention_days": None}).raise_for_status()
            entries = list(client.entries(gallery.name))
            tags = {entry.entry_id: str(entry.attributes["tag"]) for entry in entries}
            found[gallery.name] = {
                tags[entry.entry_id]: KnownEntry(str(entry.person_id), entry.captured_at is not None, entry.entry_id)
                for entry in entries
            }
            if len(found[gallery.name]) != len(entries):
                raise Violation(f"gallery {gallery.name} has an enrolment twice")
            hits = client.search_vector(gallery.name, query, top_k=5000).hits or []
            scores = {hit.entry_id: hit.score for hit in hits}
            if scores.keys() != tags.keys():
                raise Violation(f"a search in {gallery.name} finds {sorted(scores)}, the list has {sorted(tags)}")
            expected = {entry: float(vector(tag, gallery.keep_crops) @ query) for entry, tag in tags.items()}
            wrong = [entry for entry, score in expected.items() if abs(scores[entry] - score) > 1e-5]
            if wrong:
                raise Violation(f"the vectors of {wrong} in gallery {gallery.name} are not those that were enrolled")
            _check_pictures(client, gallery.name, entries, gallery.keep_crops)
    return found


def _check_pictures(client: Client, gallery: str, entries: list[Entry], keeps: bool) -> None:
    if {entry.image for entry in entries} - {keeps}:
        raise Violation(f"gallery {gallery} keeps other pictures than it should")
    for entry in entries[-1:] if keeps else []:
        kept = np.asarray(Image.open(BytesIO(client.image(gallery, entry.entry_id))), np.float64)
        if np.abs(kept - pixels(str(entry.attributes["tag"]))).mean() > _MAX_DIFFERENCE:
            raise Violation(f"the picture of entry {entry.entry_id} in gallery {gallery} is another one")


def verify(url: str, workers: list[Worker]) -> None:
    """Compare the entries of a server with the responses to every client. Raises Violation."""
    found = list_entries(url)
    with httpx.Client(base_url=url, timeout=30) as http:
        for worker in workers:
            own = {
                gallery: {tag: kept for tag, kept in entries.items() if worker.owns(gallery, tag)}
                for gallery, entries in found.items()
                if gallery == SHARED or worker.owns(gallery, "")
            }
            worker.settle(own, http)
        owned = sum(len(entries) for worker in workers for entries in worker.acknowledged.values())
    if owned != sum(len(entries) for entries in list_entries(url).values()):
        raise Violation("the service has entries that no client enrolled")


def check_backup(backup: Path, folder: Path, exit_code: int | None) -> str:
    """The result of a killed backup. Raises Violation if the file is neither complete nor absent."""
    for unfinished in backup.parent.glob(f".{backup.name}.*"):
        unfinished.unlink()
    if not backup.exists():
        if exit_code == 0:
            raise Violation("a backup reported success, but its file is missing")
        return "not there"
    try:
        restore_backup(backup, folder / "restored", replace=True)
    except BackupError as error:
        raise Violation(f"a backup file is incomplete: {error}") from error
    backup.unlink()
    return "whole"


def play(folder: Path, rounds: int, seed: int, progress: Console) -> dict[str, Any]:
    """Kill `rounds` servers on a folder. Returns the numbers of acknowledged and lost writes; raises Violation."""
    bundle, data, log, backup = write_bundle(folder / "bundle"), folder / "data", folder / "log", folder / "backup"
    random = np.random.default_rng(seed)
    workers = [Worker(number, seed) for number in range(WORKERS)]
    backups: Counter[str] = Counter()
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["benchmarks.crash.client", "rich", "pan_reid", "typer"])  # saves a second per fork
    server = Served(bundle, data, log)
    with Client(server.url) as client:
        client.create_gallery(SHARED)
    try:
        for _ in track(range(rounds), "killing", console=progress, disable=not progress.is_terminal):
            beside: ForkServerProcess = forks.Process(target=create_backup, args=(data, backup))
            with httpx.Client(base_url=server.url, timeout=30) as http:
                threads = [threading.Thread(target=worker.work, args=(http,)) for worker in workers]
                for thread in threads:
                    thread.start()
                ends = time.monotonic() + random.uniform(0.0, MAX_DELAY)
                beside.start()
                time.sleep(random.uniform(0.0, MAX_BACKUP_DELAY))
                beside.kill()
                time.sleep(max(0.0, ends - time.monotonic()))
                server.stop(signal.SIGKILL)
                for thread in threads:
                    thread.join()
                beside.join()
            if failures := [worker.failure for worker in workers if worker.failure is not None]:
                raise failures[0]
            backups[check_backup(backup, folder, beside.exitcode)] += 1
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
        "acknowledged": dict(sum((worker.completed for worker in workers), Counter[str]())),
        "answers lost": dict(sum((worker.lost for worker in workers), Counter[str]())),
        "backups": dict(backups),
        "entries at the end": sum(len(entries) for worker in workers for entries in worker.acknowledged.values()),
    }


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 200,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Kill the server repeatedly, and compare its entries with its responses."""
    report(play, rounds, seed, as_json)


if __name__ == "__main__":
    typer.run(main)
