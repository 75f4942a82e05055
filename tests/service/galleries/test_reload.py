"""An index that could not apply a commit is reloaded from the database."""

import asyncio
from pathlib import Path

import pytest

from tests.service.galleries.gates import run, search_held
from tests.service.galleries.store import opened


def test_a_reloaded_index_has_each_pending_commit_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_failed_reload_is_repeated_with_the_next_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_failed_reload_is_repeated_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
