"""Failures of the disk, the engine and the memory: the service reports them and recovers."""

import asyncio
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from service.api.app import create_app
from service.container import Container, open_service
from service.core.errors import EngineFailed, NotReady
from service.core.models import NewEntry
from service.core.settings import Settings
from service.galleries.commands import CreateGallery, Crop, EnrolCrops
from service.index.gallery_index import GalleryIndex
from service.index.metadata import Filter
from tests.support.bundles import DIM
from tests.support.pictures import png


def test_a_disk_without_space_acknowledges_no_write_and_recovers_without_a_restart(launch) -> None:
    server: Served = launch()
    entry = {"entries": [{"vector": [1.0] * DIM}] * 16}
    with httpx.Client(base_url=server.url, timeout=30) as http:
        http.post("/v1/galleries", json={"name": "lobby"})
        assert http.post("/v1/galleries/lobby/entries", json=entry).status_code == 201
        before = http.get("/v1/galleries/lobby/entries").json()
        # No file of the process may grow, so SQLite cannot extend its write-ahead log.
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        refused = http.post("/v1/galleries/lobby/entries", json=entry)
        assert (refused.status_code, refused.json()["code"]) == (503, "storage-failed")
        assert http.delete("/v1/galleries/lobby/entries/1").status_code == 503
        assert http.get("/v1/galleries/lobby/entries").json() == before
        not_ready = http.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["code"]) == (503, "not-ready")
        assert http.get("/healthz").status_code == 200
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert http.get("/readyz").status_code == 200
        again = http.post("/v1/galleries/lobby/entries", json=entry)
        assert [result["entry_id"] for result in again.json()["results"]] == list(range(17, 33))
        hits = http.post("/v1/galleries/lobby/search", json={"vector": [1.0] * DIM, "top_k": 100}).json()["hits"]
        assert len(hits) == 32
    assert server.stop() == 0


def test_reads_that_cannot_open_the_database_fail_and_later_ones_succeed(launch) -> None:
    server: Served = launch()
    limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        # Connect first, so that reads fail and not connections.
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=30)) for _ in range(8)]
        assert clients[0].post("/v1/galleries", json={"name": "lobby"}).status_code == 201

        def read_all() -> set[int]:
            return set(threads.map(lambda http: http.get("/v1/galleries/lobby/entries").status_code, 4 * clients))

        assert {http.get("/healthz").status_code for http in clients} == {200}
        opened = {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
        lowest_free = min(set(range(len(opened) + 1)) - opened)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (lowest_free, limit[1]))
        while 503 not in (seen := read_all()):  # until two concurrent reads need a new thread
            assert seen == {200}
        assert seen <= {200, 503}
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limit)
        assert read_all() == {200}
        assert clients[0].get("/readyz").status_code == 200
    assert server.stop() == 0


def with_service(bundle: Path, data: Path, play) -> None:
    async def run() -> None:
        async with open_service(Settings(bundle=bundle, data=data)) as service:
            await play(service)

    asyncio.run(run())


def test_readiness_reports_a_failing_engine(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(service: Container) -> None:
        await service.use_cases.status.readiness()  # runs the warm-up
        engine = service.embedder._engine
        works = engine.embed

        def fails(_: object) -> None:
            raise EngineFailed("out of memory")

        monkeypatch.setattr(engine, "embed", fails)
        await service.use_cases.status.readiness()  # ready, because an embedding succeeded recently
        monkeypatch.setattr("service.galleries.status._PROBE_VALID_FOR", 0.0)
        with pytest.raises(NotReady, match="out of memory"):
            await service.use_cases.status.readiness()
        monkeypatch.setattr(engine, "embed", works)
        await service.use_cases.status.readiness()

    with_service(bundle, tmp_path, play)


@pytest.mark.parametrize("name", ["engine", "search"])
def test_the_end_of_a_thread_shows_in_responses_readiness_and_metrics(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def play(service: Container) -> None:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post("/v1/galleries", json={"name": "lobby"})
            assert (await http.get("/readyz")).status_code == 200

            def ends(*_: object) -> None:
                raise SystemExit

            if name == "engine":
                monkeypatch.setattr(service.embedder._engine, "embed", ends)
            else:
                monkeypatch.setattr(GalleryIndex, "search", ends)
            search = {"files": [("images", ("x", png(1)))]}
            for _ in range(2):  # the batch that ends the thread, and a later one
                answer = await http.post("/v1/galleries/lobby/search", **search)
                assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["code"]) == (503, "not-ready")
            assert f"the {name} thread ended" in ready.json()["detail"]
            assert f'pan_worker_failing{{worker="{name}"}} 1.0' in (await http.get("/metrics")).text

    with_service(bundle, tmp_path, play)


def test_an_interrupt_in_a_slow_search_does_not_end_the_event_loop(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(service: Container) -> None:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as http:
            await http.post("/galleries", json={"name": "lobby"})

            def interrupted(*_: object) -> None:
                raise KeyboardInterrupt

            search = {"vector": [1.0] * DIM, "group_by": "person"}
            with monkeypatch.context() as broken:
                broken.setattr(GalleryIndex, "search_persons", interrupted)
                assert (await http.post("/galleries/lobby/search", json=search)).status_code == 500
            assert (await http.post("/galleries/lobby/search", json=search)).status_code == 200

    with_service(bundle, tmp_path, play)


def test_a_gallery_is_reloaded_if_its_update_after_a_commit_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.eye(3, DIM, dtype=np.float32)

    async def play(service: Container) -> None:
        galleries = service.catalog
        await service.use_cases.galleries.create(CreateGallery("me", "lobby"))

        async def enrol(row: int) -> None:
            crop = Crop(NewEntry(f"p{row}"), vectors[row])
            await service.use_cases.enrolment.enrol(EnrolCrops("me", "lobby", (crop,)))

        await enrol(0)

        def fails(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as broken:
            broken.setattr(galleries.find("lobby").memory, "add", fails)
            await enrol(1)
        await enrol(2)
        assert len(galleries.find("lobby").memory) == 3
        for row in range(3):
            assert (
                galleries.find("lobby").memory.search([vectors[row : row + 1]], 1, Filter())[0][0].entry_id == row + 1
            )

    with_service(bundle, tmp_path, play)


def test_an_unexpected_error_is_a_problem_document_without_details(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(service: Container) -> None:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post("/v1/galleries", json={"name": "lobby"})

            def fails(*_: object) -> None:
                raise KeyError("a secret")

            monkeypatch.setattr(GalleryIndex, "search", fails)
            answer = await http.post("/v1/galleries/lobby/search", files=[("images", ("x", png(1)))])
            assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
            assert "secret" not in answer.text
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
            monkeypatch.undo()
            answer = await http.post("/v1/galleries/lobby/search", files=[("images", ("x", png(1)))])
            assert answer.status_code == 200

    with_service(bundle, tmp_path, play)
    assert "a secret" in caplog.text  # the log has the details


def test_the_openapi_document_is_built_at_startup(bundle: Path, tmp_path: Path) -> None:
    async def play(service: Container) -> None:
        assert create_app(service).openapi_schema is not None

    with_service(bundle, tmp_path, play)
