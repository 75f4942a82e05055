"""A search delays the changes of its own gallery, and nothing else."""

import asyncio
import threading
from pathlib import Path

import numpy as np

from tests.service.galleries.gates import run, search_held
from tests.service.galleries.store import opened


def test_a_running_search_delays_neither_other_galleries_nor_the_audit_log(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(tmp_path, "busy", "other") as store:
            await store.enrol("busy", "ann")
            with search_held(store.catalog.find("busy").memory) as go_on:
                waiting = [
                    asyncio.create_task(store.enrol("busy", "ben")),
                    asyncio.create_task(store.erase("busy", "ann")),
                ]
                await store.audit.record("me", "search", "busy", 1)  # of the same gallery
                first, second = await store.enrol("other", "cat", "dan")
                await store.update("other", first, person_id="eve")
                await store.delete_entry("other", second)
                assert store.found("other") == [first]
                await store.create("third")
                await store.delete("third")
                # Pending requests wait for the search; their changes are committed already.
                rows = await store.rows("busy")
                assert [row.person_id for row in rows] == ["ben"]
                assert not any(task.done() for task in waiting)
                go_on.set()
                await asyncio.gather(*waiting)
            assert store.found("busy") == [rows[0].id]

    run(play())


def test_changes_of_a_gallery_are_applied_in_the_order_of_their_commits(tmp_path: Path) -> None:
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


def test_a_recreated_gallery_gets_no_pending_changes_of_the_deleted_one(tmp_path: Path) -> None:
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


def test_galleries_can_be_iterated_while_others_are_created_and_deleted(tmp_path: Path) -> None:
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


def test_a_cancelled_enrolment_returns_its_ids_if_its_commit_is_queued(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(tmp_path, "g") as store:
            go_on = threading.Event()
            store.database.submit_write(lambda _: go_on.wait(60))
            enrolling = asyncio.create_task(store.enrol("g", "ann"))
            await asyncio.sleep(0)  # it waits for the writer
            enrolling.cancel()
            await asyncio.sleep(0)
            go_on.set()
            assert await enrolling == store.found("g")

    run(play())
