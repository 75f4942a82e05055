"""Both clients against a real server: the same calls have the same results."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np

from benchmarks.common.served import Served
from pan_reid import AsyncClient, Client, Crop, VectorCrop
from pan_reid.schemas import EnrolResult, EntryInfo
from tests.support.bundles import DIM
from tests.support.pictures import encode, person, png


def test_both_clients_return_the_same(launch: Callable[..., Served]) -> None:
    url = launch().url
    crops = [Crop(png(n % 5, n), EntryInfo(person_id=f"p{n % 5}", camera_id="c1")) for n in range(10)]

    def blocking() -> list[Any]:
        with Client(url) as client:
            client.create_gallery("hall", "a test", retention_days=30)
            enrolled = client.enrol("hall", [*crops, Crop(b"no picture")])
            vectors = client.embed([png(1), png(2)])
            file = BytesIO()
            client.export_gallery("hall", file.write)
            file.seek(0)
            made = client.import_gallery("copy", file)
            client.delete_entry("hall", 10)
            changed = client.update_gallery("hall", purpose="another", retention_days=None)
            client.update_entry("hall", 1, camera_id=None, attributes={"bag": True})
            relabelled = client.entry("hall", 1)
            answers = [
                [entry.person_id for entry in client.entries("hall", person_id="p1")],
                [one.person_id for one in client.persons("hall")],
                [hit.person_id for hit in client.search("hall", png(3), top_k=2).hits or []],
                [hit.person_id for hit in client.search("hall", png(3), png(4), rerank={}).hits or []],
                [hit.person_id for hit in client.search_vector("hall", vectors, fuse="best").hits or []],
                [one.person_id for one in client.search_entry("hall", 1, 2, group_by="person").persons or []],
                client.compare([png(1)], [png(1), png(2)]),
                client.embed([encode(person(1))], boxes=[[0, 0, 64, 128], [0, 0, 32, 64]]).shape,
                client.model(),
                client.purge("hall").entries,
                client.erase_person("hall", "p2").entries,
                client.gallery("hall").entries,
                [gallery.name for gallery in client.galleries()],
                [client.delete_gallery("hall").entries, client.delete_gallery("copy").entries],
            ]
            known = [changed.purpose, changed.retention_days, relabelled.camera_id, relabelled.attributes]
            return [enrolled.results[10].error, vectors.tolist(), made.entries, *answers, known]

    async def awaiting() -> list[Any]:
        async with AsyncClient(url) as client:
            await client.create_gallery("hall", "a test", retention_days=30)
            enrolled = await client.enrol("hall", [*crops, Crop(b"no picture")])
            vectors = await client.embed([png(1), png(2)])
            file = BytesIO()
            await client.export_gallery("hall", file.write)
            file.seek(0)
            made = await client.import_gallery("copy", file)
            first = enrolled.results[0].entry_id or 0
            await client.delete_entry("hall", first + 9)
            changed = await client.update_gallery("hall", purpose="another", retention_days=None)
            await client.update_entry("hall", first, camera_id=None, attributes={"bag": True})
            relabelled = await client.entry("hall", first)
            answers = [
                [entry.person_id async for entry in client.entries("hall", person_id="p1")],
                [one.person_id async for one in client.persons("hall")],
                [hit.person_id for hit in (await client.search("hall", png(3), top_k=2)).hits or []],
                [hit.person_id for hit in (await client.search("hall", png(3), png(4), rerank={})).hits or []],
                [hit.person_id for hit in (await client.search_vector("hall", vectors, fuse="best")).hits or []],
                [
                    one.person_id
                    for one in (await client.search_entry("hall", first, first + 1, group_by="person")).persons or []
                ],
                await client.compare([png(1)], [png(1), png(2)]),
                (await client.embed([encode(person(1))], boxes=[[0, 0, 64, 128], [0, 0, 32, 64]])).shape,
                await client.model(),
                (await client.purge("hall")).entries,
                (await client.erase_person("hall", "p2")).entries,
                (await client.gallery("hall")).entries,
                [gallery.name for gallery in await client.galleries()],
                [(await client.delete_gallery("hall")).entries, (await client.delete_gallery("copy")).entries],
            ]
            known = [changed.purpose, changed.retention_days, relabelled.camera_id, relabelled.attributes]
            return [enrolled.results[10].error, vectors.tolist(), made.entries, *answers, known]

    expected = blocking()
    assert asyncio.run(awaiting()) == expected
    assert expected[2:5] == [10, ["p1", "p1"], [f"p{n}" for n in range(5)]]
    assert np.shape(expected[1]) == (2, DIM)
    assert expected[12:] == [0, 2, 7, ["copy", "hall"], [7, 10], ["another", None, None, {"bag": True}]]


def test_both_clients_enrol_a_stream_of_crops_and_vectors(launch: Callable[..., Served]) -> None:
    """More crops than one request has, from a generator. An invalid crop has an error at its position."""
    url = launch().url

    def crops() -> Iterator[Crop | VectorCrop]:
        yield Crop(png(1), EntryInfo(person_id="a", captured_at=datetime(2024, 5, 1, tzinfo=UTC)))
        for n in range(2500):
            yield VectorCrop(np.random.default_rng(n).normal(size=DIM).astype(np.float32), EntryInfo(person_id=f"p{n}"))
        yield Crop(b"no picture")

    def blocking() -> list[EnrolResult]:
        with Client(url) as client:
            client.create_gallery("one")
            return list(client.enrol_stream("one", crops()))

    async def awaiting() -> list[EnrolResult]:
        async with AsyncClient(url) as client:
            await client.create_gallery("two")
            return [result async for result in client.enrol_stream("two", crops())]

    for gallery, results in (("one", blocking()), ("two", asyncio.run(awaiting()))):
        assert [result.index for result in results] == list(range(2502))
        assert [result.index for result in results if result.error is not None] == [2501]
        with Client(url) as client:
            held = {entry.entry_id: entry.person_id for entry in client.entries(gallery)}
            assert [held[result.entry_id or 0] for result in results[:-1]] == ["a", *(f"p{n}" for n in range(2500))]
            assert (client.search(gallery, png(1), top_k=1).hits or [])[0].person_id == "a"
