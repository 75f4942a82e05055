"""From one model to another: the kept crops are embedded again, the gallery serves meanwhile, and nothing is lost."""

import asyncio
import base64
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from benchmarks.common.served import Served
from pan_reid import ApiError, Client, Crop
from pan_reid.schemas import EntryInfo
from service.api.app import create_app
from service.container import Container, open_service
from service.core.errors import Conflict, EngineFailed
from service.core.settings import Settings
from service.galleries import catalog as galleries
from service.galleries import transfer
from service.galleries.commands import ExportGallery
from service.inference.embedder import Embedder
from service.observability.metrics import Metrics
from service.storage import reembedding as rows
from service.storage.backup import create_backup, restore_backup
from service.workers import reembedding
from tests.service.inference.test_embedder import Gated
from tests.support.bundles import DIM, HEIGHT, WIDTH, reference_embedding, write_bundle
from tests.support.pictures import png
from tests.support.servers import pan_serve, running

OTHER_DIM = 32
PEOPLE = 30


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with another model, of another dimension."""
    return write_bundle(tmp_path_factory.mktemp("other"), seed=1, dim=OTHER_DIM)


def fill(client: Client, count: int = PEOPLE) -> None:
    client.create_gallery("g", keep_crops=True)
    crops = [Crop(png(n), EntryInfo(person_id=f"p{n}")) for n in range(count)]
    for start in range(0, count, 200):
        assert client.enrol("g", crops[start : start + 200]).failed == 0


@pytest.fixture
def data(bundle: Path, tmp_path: Path) -> Path:
    """A data folder with a gallery of the first model that keeps its crops."""
    with running(Settings(bundle=bundle, data=tmp_path / "data")) as http, Client(str(http.base_url)) as client:
        fill(client)
    return tmp_path / "data"


def by_the_other(kept: Sequence[bytes]) -> np.ndarray:
    """What the other model is by definition, of pictures as Pillow reads them."""
    size = (WIDTH, HEIGHT)
    crops = [np.asarray(Image.open(BytesIO(one)).resize(size, Image.Resampling.BILINEAR)) for one in kept]
    return reference_embedding(np.stack(crops), seed=1, dim=OTHER_DIM)


def stored(data: Path, dim: int) -> dict[int, np.ndarray]:
    """The vectors that are on the disk, by entry."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        rows = db.execute("SELECT entry_id, vector FROM vectors").fetchall()
    db.close()
    return {entry: np.frombuffer(vector, "<f4").reshape(dim) for entry, vector in rows}


def lengths(data: Path) -> list[bytes]:
    """The vectors that are in their place on the disk."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        found = [row[0] for row in db.execute("SELECT vector FROM vectors")]
    db.close()
    return found


def settled(data: Path) -> None:
    """Wait until every vector lies in its place."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        while db.execute("SELECT count(*) FROM reembedded").fetchone()[0]:
            time.sleep(0.01)
    db.close()


def until_done(client: Client) -> Any:
    while (found := client.re_embedding("g")).state == "running":
        time.sleep(0.02)
    return found


@asynccontextmanager
async def opened(bundle: Path, data: Path) -> AsyncIterator[tuple[Container, httpx.AsyncClient]]:
    async with open_service(Settings(bundle=bundle, data=data)) as service:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1") as http:
            yield service, http


class Paused:
    """Lets the first batches through, and the others when told."""

    def __init__(self, service: Container, batches: int) -> None:
        self._embed = service.embedder.embed_background
        self._left = batches
        self.go_on = asyncio.Event()
        self.waiting = asyncio.Event()
        service.embedder.embed_background = self._paused  # type: ignore[method-assign]

    async def _paused(self, images: Sequence[bytes]) -> Any:
        self._left -= 1
        if self._left < 0:
            self.waiting.set()
            await self.go_on.wait()
        return await self._embed(images)


async def finished(http: httpx.AsyncClient) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = (await http.get("/galleries/g/re-embed")).json()
        if found["state"] != "running":
            return found
        await asyncio.sleep(0.01)


async def search(http: httpx.AsyncClient, **asked: Any) -> list[str]:
    answer = await http.post("/galleries/g/search", json={"top_k": 1, **asked})
    assert answer.status_code == 200, answer.text
    return [hit["person_id"] for hit in answer.json()["hits"]]


def test_every_entry_gets_the_vector_of_its_kept_picture_and_keeps_its_id(
    bundle: Path, other: Path, data: Path
) -> None:
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
        assert client.re_embed("g").state == "current"  # there is nothing left to do
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


def test_a_gallery_serves_and_changes_on_its_way(other: Path, data: Path) -> None:
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
            for entry in (2, PEOPLE - 1):  # one that is done, and one that is not
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


def test_entries_without_a_picture_are_refused_or_dropped_with_a_receipt(bundle: Path, other: Path, data: Path) -> None:
    bare = np.eye(DIM, dtype="<f4")[:3]
    with running(Settings(bundle=bundle, data=data)) as http:
        entries = [{"vector": vector.tolist(), "person_id": "bare"} for vector in bare]
        assert http.post("/v1/galleries/g/entries", json={"entries": entries}).status_code == 201
    with running(Settings(bundle=other, data=data)) as http, Client(str(http.base_url)) as client:
        with pytest.raises(ApiError, match=r"3 of 33 entries .*--drop-without-crop") as refused:
            client.re_embed("g")
        assert (refused.value.status, refused.value.problem_code) == (409, "crops-missing")
        found = client.re_embedding("g")
        assert (found.state, found.done, found.without_crop) == ("needed", 0, 3)
        client.re_embed("g", drop_without_crop=True)
        done = until_done(client)
        assert (done.state, done.entries) == ("current", PEOPLE)
        assert done.erased is not None
        while not client.re_embedding("g").erased.overwritten:  # type: ignore[union-attr]
            time.sleep(0.01)
        assert (done.erased.gallery, done.erased.entries) == ("g", 3)
        assert {person.person_id for person in client.persons("g")} == {f"p{n}" for n in range(PEOPLE)}
        held = b"".join(path.read_bytes() for path in data.iterdir())
        assert not any(vector.tobytes() in held for vector in bare)
    with sqlite3.connect(data / "pan.sqlite3") as db:
        assert ("drop-without-crop", 3) in db.execute("SELECT action, count FROM audit").fetchall()
    db.close()


def test_no_more_is_dropped_than_was_agreed_to_and_what_cannot_be_used_is_told(other: Path, data: Path) -> None:
    with sqlite3.connect(data / "pan.sqlite3") as db:
        db.execute("UPDATE crops SET image = ? WHERE entry_id = 7", (b"damaged",))
        db.execute("DELETE FROM crops WHERE entry_id = 8")
    db.close()
    with running(Settings(bundle=other, data=data)) as http, Client(str(http.base_url)) as client:
        client.re_embed("g", drop_without_crop=True)  # the one that is known to have none
        found = until_done(client)
        assert (found.state, found.done, found.without_crop) == ("stopped", PEOPLE - 2, 2)
        assert found.problem is not None
        assert "2 of 30 entries" in found.problem
        assert client.gallery("g").entries == PEOPLE
        assert [hit.person_id for hit in client.search_entry("g", 7, top_k=100).hits or []]
        client.re_embed("g")  # to go on as it was agreed, it need not be agreed again; the damaged one is tried again
        assert until_done(client).state == "stopped"
        client.re_embed("g", drop_without_crop=True)
        assert until_done(client).state == "current"
        assert client.gallery("g").entries == PEOPLE - 2


def test_an_export_that_began_before_does_not_mix_two_models(
    other: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_from_the_switch_on_every_reader_sees_the_new_vectors_wherever_they_lie(
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
            async with opened(other, data) as (_, http):  # and nothing is, after a restart
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


def test_everybody_else_writes_and_searches_while_the_new_vectors_are_read(
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


def test_it_can_be_given_up(bundle: Path, other: Path, data: Path) -> None:
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


def test_a_gallery_that_is_erased_on_its_way_leaves_nothing(other: Path, data: Path) -> None:
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


def test_it_tries_again_when_the_engine_fails(other: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_kill_loses_nothing_and_it_goes_on_by_itself(
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
    server = launch(bundle=bundle)  # with the former model all is as it was
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


def test_kept_crops_wait_for_the_requests(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_command_does_it_and_says_what_is_wrong(other: Path, data: Path) -> None:
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
