"""The clients: two ways to send the same calls, against real servers."""

import asyncio
import inspect
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from pan_reid import ApiError, AsyncClient, Client, ClientError, Crop, VectorCrop, endpoints
from pan_reid.schemas import EnrolResult, EntryInfo
from tests.support.bundles import DIM
from tests.support.pictures import encode, person, png


def _methods(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method) for name, method in vars(client).items() if callable(method) and name[0] != "_"
    }


def test_both_clients_have_the_same_methods() -> None:
    blocking, awaiting = _methods(Client), _methods(AsyncClient)
    assert {"search", "enrol", "entries", "export_gallery"} <= set(blocking)
    assert set(awaiting) == set(blocking)
    for name, signature in blocking.items():
        text = str(awaiting[name]).replace("AsyncIterator", "Iterator")
        assert text == str(signature), name
        assert inspect.getdoc(getattr(AsyncClient, name)) == inspect.getdoc(getattr(Client, name)), name
        lists = "Iterator" in str(signature.return_annotation)
        assert lists or inspect.iscoroutinefunction(getattr(AsyncClient, name)), name
    assert inspect.signature(AsyncClient) == inspect.signature(Client)


def test_every_operation_of_the_document_is_a_call() -> None:
    document = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
    wanted = {
        (method.upper(), re.sub(r"{\w+}", "x", path))
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/v1")
    }
    made = {("POST", "/v1/galleries/x/entries/stream"), ("POST", "/v1/galleries/x/export")}  # these two are read
    made.add(("POST", "/v1/galleries/x/import"))  # and sent bit by bit
    for describe in vars(endpoints).values():
        if inspect.isfunction(describe) and describe.__module__ == endpoints.__name__ and describe.__name__[0] != "_":
            call: Any = describe(*(_PLACEHOLDERS[name] for name in _required(describe)))
            made.add((getattr(call, "method", "GET"), call.path.replace("/1", "/x")))
    assert made == wanted


_PLACEHOLDERS: dict[str, Any] = {
    "gallery": "x",
    "name": "x",
    "person_id": "x",
    "entry_id": 1,
    "crops": [],
    "images": [],
}
_PLACEHOLDERS |= {"a": [], "b": [], "vector": np.ones(DIM, np.float32)}


def _required(describe: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(describe).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_method_is_written_with_the_parameters_of_its_endpoint(client: type) -> None:
    """An editor reads the source, so a signature that is only set at run time does not show there."""
    for name, signature in _methods(client).items():
        method = getattr(client, name)
        assert not hasattr(method, "__signature__"), name
        assert method.__qualname__ == f"{client.__name__}.{name}"
        if describe := getattr(endpoints, name, None):
            wanted = list(inspect.signature(describe).parameters.values())
            assert list(signature.parameters.values())[1:] == wanted, name
            assert inspect.getdoc(method) == inspect.getdoc(describe), name


def test_the_two_clients_do_the_same(launch: Callable[..., Served]) -> None:
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


def test_a_stream_of_crops_and_vectors_by_both(launch: Callable[..., Served]) -> None:
    """More than one request takes, drawn from a generator; a crop that cannot be used is told of in its place."""
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


class _Moody(BaseHTTPRequestHandler):
    """Answers with the statuses it is told to, and counts; 0 hangs up instead."""

    moods: list[int]
    keys: list[str | None]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        status = self.moods.pop(0)
        if not status:
            self.close_connection = True
            return
        fine = b'{"enrolled": 1, "failed": 0, "results": []}'
        wrong = b'{"code": "overloaded", "detail": "full", "request_id": "r1"}'
        body = fine if status == 201 else wrong
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody() -> Any:
    _Moody.moods, _Moody.keys = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _enrol(kind: type[Client] | type[AsyncClient], url: str, retries: int) -> int:
    crops = [Crop(b"x")]
    if kind is Client:
        with Client(url, retries=retries) as client:
            return client.enrol("hall", crops).enrolled

    async def enrol() -> int:
        async with AsyncClient(url, retries=retries) as client:
            return (await client.enrol("hall", crops)).enrolled

    return asyncio.run(enrol())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_both_try_again_under_the_same_key_and_give_up_alike(
    kind: type[Client] | type[AsyncClient], moody: str
) -> None:
    _Moody.moods = [429, 0, 503, 201]
    assert _enrol(kind, moody, retries=5) == 1
    assert len(_Moody.keys) == 4
    assert len(set(_Moody.keys)) == 1
    _Moody.moods = [429, 429, 429]
    with pytest.raises(ApiError, match=r"full \(429 overloaded, request r1\)") as caught:
        _enrol(kind, moody, retries=2)
    assert (caught.value.status, _Moody.moods) == (429, [])
    _Moody.moods = [413]
    with pytest.raises(ApiError):
        _enrol(kind, moody, retries=5)
    with httpx.Client() as probe:
        free = str(probe.build_request("GET", moody).url.copy_with(port=1))
    with pytest.raises(ClientError, match=r"no answer from http://127.0.0.1:1 \(ConnectError: .*is `pan-serve run`"):
        _enrol(kind, free, retries=0)


def test_what_changes_something_and_has_no_key_is_not_sent_twice(moody: str) -> None:
    _Moody.moods = [0, 201]
    with Client(moody) as client, pytest.raises(ClientError, match="no answer"):
        client.create_gallery("hall")
    assert len(_Moody.keys) == 1
