"""The switch to the new vectors: at once, for every reader, while others write."""

import asyncio
import base64
import sqlite3
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.core.errors import Conflict, EngineFailed
from service.galleries import catalog as galleries
from service.galleries import transfer
from service.galleries.commands import ExportGallery
from service.storage import reembedding as rows
from service.storage.backup import create_backup, restore_backup
from tests.service.workers.models import (
    OTHER_DIM,
    PEOPLE,
    by_the_other,
    finished,
    opened,
    search,
    settled,
    stored,
)
from tests.support.bundles import DIM
from tests.support.pictures import png


def lengths(data: Path) -> list[bytes]:
    """The vectors in the table `vectors`."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        found = [row[0] for row in db.execute("SELECT vector FROM vectors")]
    db.close()
    return found


def test_an_export_does_not_mix_two_models(other: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_BATCH", 5)

    async def test() -> None:
        async with opened(other, data) as (service, http):
            export = service.use_cases.transfer
            page = await export.export_page(await export.begin_export(ExportGallery("me", "g")))
            assert page.following is not None
            assert {len(one.vector) for one in page.entries} == {4 * page.following.gallery.dim}
            await http.post("/galleries/g/re-embed")
            assert (await finished(http))["state"] == "current"
            with pytest.raises(Conflict, match="export it again"):
                await export.export_page(page.following)

    asyncio.run(test())


def test_after_the_switch_every_reader_sees_the_new_vectors(
    other: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_: object, **__: object) -> None:
        raise EngineFailed("not yet")

    async def read_all(http: httpx.AsyncClient) -> np.ndarray:
        kept = [(await http.get(f"/galleries/g/entries/{n}/image")).content for n in range(1, PEOPLE)]
        lines = (await http.post("/galleries/g/export")).content.splitlines()[1:-1]
        vectors = [np.frombuffer(base64.b64decode(orjson.loads(line)["vector"]), "<f4") for line in lines]
        np.testing.assert_allclose(vectors[: PEOPLE - 1], by_the_other(kept), atol=1e-5)
        for n in (1, PEOPLE - 2):
            assert await search(http, entry_id=n + 1, top_k=1) != [f"p{n}"]
            assert await search(http, images=[base64.b64encode(png(n)).decode()]) == [f"p{n}"]
        return np.stack(vectors)

    async def test() -> None:
        with monkeypatch.context() as stuck:
            stuck.setattr(rows, "migrate_vectors", not_yet)
            async with opened(other, data) as (_, http):
                await http.post("/galleries/g/re-embed")
                await finished(http)
                await http.post("/galleries/g/entries", json={"entries": [{"vector": np.eye(OTHER_DIM)[0].tolist()}]})
                before = await read_all(http)
            assert {len(vector) for vector in lengths(data)} == {4 * DIM, 4 * OTHER_DIM}  # nothing was moved
            create_backup(data, tmp_path / "backup")
            async with opened(other, data) as (_, http):  # not even after a restart
                assert (await read_all(http) == before).all()
                assert (await http.patch("/galleries/g", json={"keep_crops": False})).status_code == 200
        async with opened(other, data) as (_, http):
            await asyncio.to_thread(settled, data)
            lines = (await http.post("/galleries/g/export")).content.splitlines()[1:-1]
            vectors = [np.frombuffer(base64.b64decode(orjson.loads(line)["vector"]), "<f4") for line in lines]
            assert (np.stack(vectors) == before).all()

    asyncio.run(test())
    assert len(stored(data, OTHER_DIM)) == PEOPLE + 1  # all was moved
    assert [one.entries for one in restore_backup(tmp_path / "backup", tmp_path / "restored", replace=False)] == [
        PEOPLE + 1
    ]


def test_writes_and_searches_continue_while_the_new_index_is_built(
    other: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with opened(other, data) as (service, http):
            inside, go_on = threading.Event(), threading.Event()
            rebuild = galleries.load_gallery

            def held(*args: Any, **options: Any) -> Any:
                gallery = rebuild(*args, **options)
                inside.set()
                assert go_on.wait(60)
                return gallery

            monkeypatch.setattr(galleries, "load_gallery", held)
            await http.post("/galleries/g/re-embed")
            assert await asyncio.to_thread(inside.wait, 60)
            await service.audit.record("me", "search", "elsewhere", 1)
            assert (await http.post("/galleries", json={"name": "elsewhere"})).status_code == 201
            vector = np.eye(OTHER_DIM)[0].tolist()
            added = await http.post("/galleries/elsewhere/entries", json={"entries": [{"vector": vector}]})
            assert added.status_code == 201
            assert (await http.delete("/galleries/g/entries/2")).status_code == 204
            renamed = await http.patch("/galleries/g/entries/3", json={"person_id": "new"})
            assert renamed.json()["person_id"] == "new"
            assert (await http.delete("/galleries/g/persons?person_id=p9")).json()["entries"] == 1
            assert (await http.patch("/galleries/g", json={"purpose": "changed"})).status_code == 200
            assert len(await search(http, entry_id=5, top_k=100)) == PEOPLE - 3
            assert (await http.get("/galleries/g/re-embed")).json()["state"] == "running"
            go_on.set()
            found = await finished(http)
            assert (found["state"], found["entries"]) == ("current", PEOPLE - 2)
            gallery = (await http.get("/galleries/g")).json()
            assert (gallery["entries"], gallery["persons"], gallery["purpose"]) == (PEOPLE - 2, PEOPLE - 2, "changed")
            for n in set(range(PEOPLE)) - {1, 9}:
                picture = base64.b64encode(png(n)).decode()
                assert await search(http, images=[picture]) == ["new" if n == 2 else f"p{n}"]

    asyncio.run(asyncio.wait_for(test(), 120))
