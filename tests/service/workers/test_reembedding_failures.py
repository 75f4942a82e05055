"""Re-embedding that is cancelled, fails or is killed."""

import asyncio
import signal
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.served import Served
from pan_reid import Client, Crop
from pan_reid.schemas import EntryInfo
from service.core.errors import EngineFailed
from service.core.settings import Settings
from service.workers import reembedding
from tests.service.workers.models import (
    OTHER_DIM,
    PEOPLE,
    Paused,
    by_the_other,
    fill,
    finished,
    opened,
    search,
    settled,
    stored,
    until_done,
)
from tests.support.bundles import DIM
from tests.support.pictures import png
from tests.support.servers import running


def test_a_re_embedding_can_be_cancelled(bundle: Path, other: Path, data: Path) -> None:
    async def test() -> None:
        async with opened(other, data) as (service, http):
            paused = Paused(service, batches=1)
            await http.post("/galleries/g/re-embed")
            await paused.waiting.wait()
            assert (await http.patch("/galleries/g", json={"keep_crops": False})).status_code == 200
            paused.go_on.set()
            found = await finished(http)
            assert (found["state"], found["done"], found["without_crop"]) == ("needed", 0, PEOPLE)
            assert len(await search(http, entry_id=1, top_k=100)) == PEOPLE - 1

    asyncio.run(test())
    with running(Settings(bundle=bundle, data=data)) as http, Client(str(http.base_url)) as client:
        assert [hit.person_id for hit in client.search("g", png(3), top_k=1).hits or []] == ["p3"]


def test_a_gallery_that_is_erased_during_its_re_embedding_leaves_nothing(other: Path, data: Path) -> None:
    async def test() -> None:
        async with opened(other, data) as (service, http):
            paused = Paused(service, batches=1)
            await http.post("/galleries/g/re-embed")
            await paused.waiting.wait()
            assert (await http.delete("/galleries/g")).json()["overwritten"] is True
            await http.post("/galleries", json={"name": "g"})  # another one of this name
            paused.go_on.set()
            found = await finished(http)
            assert (found["state"], found["entries"]) == ("current", 0)

    asyncio.run(test())
    with sqlite3.connect(data / "pan.sqlite3") as db:
        counts = [
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("entries", "vectors", "crops", "reembeddings", "reembedded")
        ]
    db.close()
    assert counts == [0, 0, 0, 0, 0]


def test_a_failed_step_is_repeated(other: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "_RETRY_DELAY", 0.01)

    async def test() -> None:
        async with opened(other, data) as (service, http):
            embed, broken = service.embedder.embed_background, True

            async def failing(images: Sequence[bytes]) -> Any:
                if broken:
                    raise EngineFailed("switched off")
                return await embed(images)

            service.embedder.embed_background = failing  # type: ignore[method-assign]
            await http.post("/galleries/g/re-embed")
            while (await http.get("/galleries/g/re-embed")).json()["problem"] != "switched off":
                await asyncio.sleep(0.01)
            broken = False
            found = await finished(http)
            assert (found["state"], found["problem"]) == ("current", None)

    asyncio.run(test())


def test_after_a_kill_the_re_embedding_continues_by_itself(
    launch: Callable[..., Served], bundle: Path, other: Path, tmp_path: Path
) -> None:
    server = launch()
    with Client(server.url) as client:
        fill(client, 400)
    server.stop()
    before = stored(tmp_path / "data", DIM)
    server = launch(bundle=other)
    with Client(server.url) as client:
        found = client.re_embed("g")
        while found.done < 20:
            found = client.re_embedding("g")
        server.stop(signal.SIGKILL)
    assert found.state == "running"
    server = launch(bundle=bundle)  # with the old model the gallery is unchanged
    with Client(server.url) as client:
        assert [hit.person_id for hit in client.search("g", png(3), top_k=1).hits or []] == ["p3"]
        client.enrol("g", [Crop(png(900), EntryInfo(person_id="late"))])
    server.stop()
    server = launch(bundle=other)
    with Client(server.url) as client:
        assert client.re_embedding("g").done >= found.done
        done = until_done(client)
        assert (done.state, done.done) == ("current", 401)
        for n, name in ((3, "p3"), (399, "p399"), (900, "late")):
            assert [hit.person_id for hit in client.search("g", png(n), top_k=1).hits or []] == [name]
        kept = [client.image("g", entry) for entry in (*range(1, 60), 401)]
        settled(tmp_path / "data")
    server.stop()
    after = stored(tmp_path / "data", OTHER_DIM)
    assert [*after] == [*before, 401]
    vectors = [after[entry] for entry in (*range(1, 60), 401)]
    np.testing.assert_allclose(vectors, by_the_other(kept), atol=1e-5)
