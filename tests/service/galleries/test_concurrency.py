"""What waits for what: a search that runs holds up the changes of its own gallery, and nothing else."""

import asyncio
import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api import mapping as views
from service.api.app import create_app
from service.container import open_service
from service.core.errors import NotReady, StorageFailed
from service.core.settings import Settings
from service.index.gallery_index import GalleryIndex
from service.index.metadata import Filter
from service.observability.metrics import Metrics
from service.storage.connection import read_probe
from service.storage.database import Database
from tests.service.galleries.store import DIM, opened


@contextmanager
def search_held(memory: GalleryIndex) -> Iterator[threading.Event]:
    """Within it a search of this gallery runs, until the event is set or the end."""
    inside, go_on = threading.Event(), threading.Event()
    nearest = memory.segment.search

    def held(*args: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return nearest(*args)

    memory.segment.search = held  # type: ignore[method-assign]
    search = threading.Thread(target=lambda: memory.search([np.eye(1, DIM, dtype=np.float32)], 1, Filter()))
    search.start()
    assert inside.wait(60)
    memory.segment.search = nearest  # type: ignore[method-assign]
    try:
        yield go_on
    finally:
        go_on.set()
        search.join()


@contextmanager
def read_held(database: Database) -> Iterator[None]:
    """Within it a reader's thread is busy, so that another read needs another."""
    inside, go_on = threading.Event(), threading.Event()

    def held(db: sqlite3.Connection) -> None:
        inside.set()
        assert go_on.wait(60)
        read_probe(db)

    reading = database.submit_read(held)
    assert inside.wait(60)
    try:
        yield
    finally:
        go_on.set()
    reading.result()


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_a_search_that_runs_holds_up_no_other_gallery_and_no_line_of_the_audit(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(tmp_path, "busy", "other") as store:
            await store.enrol("busy", "ann")
            with search_held(store.catalog.find("busy").memory) as go_on:
                waiting = [
                    asyncio.create_task(store.enrol("busy", "ben")),
                    asyncio.create_task(store.erase("busy", "ann")),
                ]
                await store.audit.record("me", "search", "busy", 1)  # of this very gallery too
                first, second = await store.enrol("other", "cat", "dan")
                await store.update("other", first, person_id="eve")
                await store.delete_entry("other", second)
                assert store.found("other") == [first]
                await store.create("third")
                await store.delete("third")
                # What is not answered yet waits for the search, and not for its turn to be written.
                rows = await store.rows("busy")
                assert [row.person_id for row in rows] == ["ben"]
                assert not any(task.done() for task in waiting)
                go_on.set()
                await asyncio.gather(*waiting)
            assert store.found("busy") == [rows[0].id]

    run(play())


def test_changes_of_a_gallery_are_followed_in_the_order_of_their_commits(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(tmp_path, "busy") as store:
            (kept,) = await store.enrol("busy", "ann")
            with search_held(store.catalog.find("busy").memory):
                tasks = []
                for turn in range(20):
                    tasks.append(asyncio.create_task(store.enrol("busy", f"p{turn}")))
                    tasks.append(asyncio.create_task(store.update("busy", kept, person_id=f"n{turn}")))
                while len(await store.rows("busy")) < 21:
                    await asyncio.sleep(0)
                tasks.append(asyncio.create_task(store.erase("busy", "p3")))
            await asyncio.gather(*tasks)
            metadata = store.catalog.find("busy").memory.segment.metadata
            rows = await store.rows("busy")
            assert len(rows) == 20
            in_memory = {
                int(metadata.entries[row]): metadata.person_name(int(metadata.persons[row]))
                for row in np.flatnonzero(metadata.live)
            }
            assert in_memory == {row.id: row.person_id for row in rows}

    run(play())


def test_a_gallery_deleted_and_made_anew_gets_nothing_of_the_changes_that_still_wait(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(tmp_path, "busy") as store:
            await store.enrol("busy", "ann")
            with search_held(store.catalog.find("busy").memory) as go_on:
                waiting = asyncio.create_task(store.enrol("busy", "ben"))
                await store.audit.record("me", "search", "busy", 1)  # after that commit
                await store.delete("busy")
                await store.create("busy")
                (entry,) = await store.enrol("busy", "cat")
                go_on.set()
                await waiting
            assert store.found("busy") == [entry]

    run(play())


def test_memory_made_anew_holds_the_commits_that_were_still_to_be_followed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with opened(tmp_path, "g") as store:
            await store.enrol("g", "ann")
            held = store.catalog.find("g")

            def fails(*_: object) -> None:
                raise MemoryError

            with search_held(held.memory):
                monkeypatch.setattr(held.memory, "add", fails)
                tasks = [asyncio.create_task(store.enrol("g", person)) for person in ("ben", "cat", "dan")]
                tasks.append(asyncio.create_task(store.erase("g", "cat")))
                while len(await store.rows("g")) != 3:
                    await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            rows = await store.rows("g")
            assert store.found("g") == [row.id for row in rows]
            assert (len(held.memory), held.memory.persons) == (3, 3)

    run(play())


def test_memory_that_could_not_be_made_anew_is_made_so_with_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with opened(tmp_path, "g") as store:
            (first,) = await store.enrol("g", "ann")

            def fails(*_: object, **__: object) -> None:
                raise MemoryError

            with monkeypatch.context() as broken:
                broken.setattr(store.catalog.find("g").memory, "add", fails)
                broken.setattr("service.galleries.catalog.load_gallery", fails)
                with pytest.raises(MemoryError):
                    await store.enrol("g", "ben")
            await store.delete_entry("g", first)
            assert store.found("g") == [first + 1]

    run(play())


def test_memory_that_could_not_be_made_anew_is_made_so_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.galleries.catalog._INTERVAL", 0.01)

    async def play() -> None:
        async with opened(tmp_path, "g") as store, store.catalog.running():

            def fails(*_: object, **__: object) -> None:
                raise MemoryError

            with monkeypatch.context() as broken:
                broken.setattr(store.catalog.find("g").memory, "add", fails)
                broken.setattr("service.galleries.catalog.load_gallery", fails)
                with pytest.raises(MemoryError):
                    await store.enrol("g", "ann")
                while not store.catalog.health.failing:
                    await asyncio.sleep(0)
            while store.catalog.health.failing:
                await asyncio.sleep(0.01)
            assert len(store.found("g")) == 1

    run(play())


def test_galleries_are_gone_through_while_others_are_made_and_deleted(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(tmp_path, *(f"g{n}" for n in range(20))) as store:
            failures: list[BaseException] = []
            over = threading.Event()

            def look() -> None:
                try:
                    while not over.is_set():
                        assert len([held.row.name for held in store.catalog.all()]) >= 20
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=look)
            thread.start()
            for turn in range(15):
                await store.create(f"more{turn}")
                await store.delete(f"more{turn}")
            over.set()
            thread.join()
            assert failures == []

    run(play())


@contextmanager
def no_more_files() -> Iterator[None]:
    """Within it the process can open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_cannot_be_opened_fails_one_read_and_no_later_one(tmp_path: Path) -> None:
    database = Database(tmp_path / "pan.sqlite3", Metrics())
    try:
        with read_held(database):
            with no_more_files(), pytest.raises(StorageFailed):
                database.submit_read(read_probe).result()
            database.submit_read(read_probe).result()
    finally:
        database.close()


@pytest.mark.parametrize("asked", [{}, {"group_by": "person", "examples": 50}])
def test_other_requests_are_answered_while_a_large_answer_is_built(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    hit_view = views.hit_view

    def held(*args: Any) -> Any:
        inside.set()
        assert go_on.wait(20)
        return hit_view(*args)

    monkeypatch.setattr(views, "hit_view", held)

    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service:
            transport = httpx.ASGITransport(create_app(service))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as http:
                await http.post("/galleries", json={"name": "g"})
                vectors = np.random.default_rng(0).normal(size=(150, service.catalog.dim)).tolist()
                entries = [{"vector": vector, "person_id": f"p{n % 4}"} for n, vector in enumerate(vectors)]
                assert (await http.post("/galleries/g/entries", json={"entries": entries})).status_code == 201
                asking = {"vector": vectors[0], "top_k": 150, **asked}
                answer = asyncio.create_task(http.post("/galleries/g/search", json=asking))
                assert await asyncio.to_thread(inside.wait, 60)
                listed = (await http.get("/galleries")).json()["galleries"]
                assert [(one["entries"], one["persons"]) for one in listed] == [(150, 4)]
                go_on.set()
                found = (await answer).json()
                assert len(found.get("hits") or [hit for one in found["persons"] for hit in one["hits"]]) == 150

    run(play())


def test_readiness_reads_as_requests_do(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service:
            monkeypatch.setattr(service.database, "_local", threading.local())  # no thread has a connection
            with no_more_files(), pytest.raises(NotReady, match="cannot be used"):
                await service.use_cases.status.readiness()
            assert (await service.use_cases.status.readiness()).failing == ()

    run(play())


def test_readiness_waits_for_another_that_asks_no_longer_than_for_the_service(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.galleries.status._PROBE_TIMEOUT", 0.05)

    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service, service.use_cases.status._probing:
            with pytest.raises(NotReady, match="did not answer"):
                await asyncio.wait_for(service.use_cases.status.readiness(), 30)

    run(play())
