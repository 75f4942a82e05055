"""From one model to another: kept crops are embedded again while the gallery answers."""

import asyncio
import base64
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from pan_reid import ApiError, Client, Crop
from service.core.settings import Settings
from service.inference.embedder import Embedder
from service.observability.metrics import Metrics
from tests.service.inference.test_embedder import Gated
from tests.service.workers.models import (
    OTHER_DIM,
    PEOPLE,
    Paused,
    by_the_other,
    finished,
    opened,
    search,
    settled,
    stored,
    until_done,
)
from tests.support.bundles import DIM
from tests.support.pictures import png
from tests.support.servers import pan_serve, running


def test_every_entry_gets_the_vector_of_its_kept_crop_and_keeps_its_id(bundle: Path, other: Path, data: Path) -> None:
    before = stored(data, DIM)
    with running(Settings(bundle=other, data=data)) as http, Client(str(http.base_url)) as client:
        assert client.re_embedding("g").state == "needed"
        kept = [client.image("g", entry) for entry in before]
        with pytest.raises(ApiError, match="pan-serve re-embed g"):
            client.search("g", png(1))
        assert client.re_embed("g").entries == PEOPLE
        done = until_done(client)
        assert (done.state, done.done, done.without_crop, done.erased) == ("current", PEOPLE, 0, None)
        assert client.gallery("g").searchable
        for n in range(PEOPLE):
            (hit,) = client.search("g", png(n, shot=1), top_k=1).hits or []
            assert (hit.person_id, hit.entry_id) == (f"p{n}", n + 1)
        assert client.enrol("g", [Crop(png(99))]).results[0].entry_id == PEOPLE + 1
        assert client.re_embed("g").state == "current"  # nothing to do
        settled(data)
    after = stored(data, OTHER_DIM)
    assert [*after][:-1] == [*before]
    np.testing.assert_allclose([*after.values()][:-1], by_the_other(kept), atol=1e-5)
    with sqlite3.connect(data / "pan.sqlite3") as db:
        actions = db.execute("SELECT action, count FROM audit WHERE action LIKE 're-embed%'").fetchall()
    db.close()
    assert actions == [("re-embed", PEOPLE), ("re-embedded", PEOPLE)]
    held = b"".join(path.read_bytes() for path in data.iterdir())
    assert not any(vector.tobytes() in held for vector in before.values())
    with running(Settings(bundle=bundle, data=data)) as http, Client(str(http.base_url)) as client:
        assert client.re_embedding("g").state == "needed"
        assert client.re_embed("g").entries == PEOPLE + 1  # and back
        assert until_done(client).state == "current"
        assert [hit.person_id for hit in client.search("g", png(3), top_k=1).hits or []] == ["p3"]


def test_a_gallery_answers_and_changes_during_its_re_embedding(other: Path, data: Path) -> None:
    old = {entry: vector.tolist() for entry, vector in stored(data, DIM).items()}

    async def test() -> None:
        async with opened(other, data) as (service, http):
            paused = Paused(service, batches=2)
            fingerprint = (await http.get("/galleries/g")).json()["fingerprint"]
            assert (await http.post("/galleries/g/re-embed")).status_code == 202
            await paused.waiting.wait()
            found = (await http.get("/galleries/g/re-embed")).json()
            assert (found["state"], found["entries"], found["fingerprint"]) == ("running", PEOPLE, fingerprint)
            assert 0 < found["done"] < PEOPLE
            assert await search(http, vector=old[5], fingerprint=fingerprint) == ["p4"]
            assert len(await search(http, entry_id=5, top_k=100)) == PEOPLE - 1
            picture = base64.b64encode(png(1)).decode()
            for path, body in (("search", {"images": [picture]}), ("entries", {"entries": [{"image": picture}]})):
                refused = await http.post(f"/galleries/g/{path}", json=body)
                assert (refused.status_code, refused.json()["code"]) == (409, "model-mismatch")
            for entry in (2, PEOPLE - 1):  # an entry that is done, and one that is not
                assert (await http.delete(f"/galleries/g/entries/{entry}")).status_code == 204
                renamed = await http.patch(f"/galleries/g/entries/{entry + 1}", json={"person_id": f"new{entry + 1}"})
                assert renamed.json()["person_id"] == f"new{entry + 1}"
            assert (await http.delete("/galleries/g/persons?person_id=p9")).json()["entries"] == 1
            await http.patch("/galleries/g", json={"purpose": "changed"})
            file = [orjson.loads(line) for line in (await http.post("/galleries/g/export")).content.splitlines()]
            assert [line["vector"] for line in file[1:2]] == [base64.b64encode(np.float32(old[1]).tobytes()).decode()]
            paused.go_on.set()
            assert (await finished(http))["entries"] == PEOPLE - 3
            gallery = (await http.get("/galleries/g")).json()
            assert (gallery["entries"], gallery["purpose"], gallery["searchable"]) == (PEOPLE - 3, "changed", True)
            gone, renamed_to = {1, 9, PEOPLE - 2}, {2: "new3", PEOPLE - 1: f"new{PEOPLE}"}
            for n in set(range(PEOPLE)) - gone:
                picture = base64.b64encode(png(n)).decode()
                assert await search(http, images=[picture]) == [renamed_to.get(n, f"p{n}")]
            assert len(await search(http, entry_id=5, top_k=100)) == PEOPLE - 4
            stale = await http.post("/galleries/g/search", json={"vector": old[5], "fingerprint": fingerprint})
            assert (stale.status_code, stale.json()["code"]) == (409, "model-mismatch")
            await asyncio.to_thread(settled, data)

    asyncio.run(test())
    assert set(stored(data, OTHER_DIM)) == set(range(1, PEOPLE + 1)) - {2, 10, PEOPLE - 1}


def test_re_embedding_waits_for_requests(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.embedder._BACKGROUND_WAIT", 60.0)

    async def test() -> None:
        engine = Gated(bundle)
        engine.gate.clear()
        embedder = Embedder(engine, Settings(bundle=bundle, data=bundle), Metrics())
        ended: list[str] = []

        async def work(name: str, embedding: Any) -> None:
            await embedding
            ended.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(work("first", embedder.embed([png(1)])))
            await asyncio.to_thread(engine.entered.wait, 30)
            group.create_task(work("kept", embedder.embed_background([png(2)])))
            await asyncio.sleep(0.1)
            group.create_task(work("second", embedder.embed([png(3)])))
            await asyncio.sleep(0.1)
            engine.gate.set()
        await embedder.close()
        assert ended == ["first", "second", "kept"]
        assert engine.sizes == [1, 1, 1]

    asyncio.run(test())


def test_the_command_re_embeds_and_reports_errors(other: Path, data: Path) -> None:
    with sqlite3.connect(data / "pan.sqlite3") as db:
        db.execute("DELETE FROM crops WHERE entry_id = 8")
    db.close()
    with running(Settings(bundle=other, data=data)) as http:
        at = ("--url", str(http.base_url))
        refused = pan_serve("re-embed", "g", *at)
        assert (refused.returncode, "1 of 30 entries of gallery g have no kept crop" in refused.stderr) == (1, True)
        done = pan_serve("re-embed", "g", "--drop-without-crop", *at)
        assert done.returncode == 0, done.stderr
        assert "of the loaded model" in done.stdout
        assert "29 entries" in done.stdout
        assert "erased 1 entries without an image" in done.stdout
        assert pan_serve("re-embed", "g", *at).returncode == 0
        missing = pan_serve("re-embed", "nowhere", *at)
        assert (missing.returncode, "there is no gallery nowhere" in missing.stderr) == (1, True)
