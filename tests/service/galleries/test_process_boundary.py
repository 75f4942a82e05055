"""Commands, results and errors are plain data: the API gives equal responses if each of them crosses a process."""

import asyncio
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import PanError
from service.api.app import create_app
from service.api.problems import status_of
from service.container import Container, open_service
from service.core import errors
from service.core.settings import Settings
from tests.support.bundles import DIM
from tests.support.pictures import png


class OtherProcess:
    """A use case whose commands, results and errors are pickled on their way."""

    def __init__(self, use_case: Any) -> None:
        self._use_case = use_case

    def __getattr__(self, name: str) -> Any:
        async def call(*command: Any) -> Any:
            try:
                return _copy(await getattr(self._use_case, name)(*_copy(command)))
            except PanError as error:
                raise _copy(error) from None

        return call


def _copy(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def behind_processes(container: Container) -> Container:
    names = [field.name for field in fields(container.use_cases) if field.name != "settings"]
    proxies = {name: OtherProcess(getattr(container.use_cases, name)) for name in names}
    return replace(container, use_cases=replace(container.use_cases, **proxies))


async def responses(container: Container, gallery: str) -> list[Any]:
    """The statuses and bodies of a call of every kind, without what differs between two galleries."""
    found: list[Any] = []
    transport = httpx.ASGITransport(create_app(container))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as http:

        async def call(method: str, path: str, **arguments: Any) -> httpx.Response:
            answer = await http.request(method, path.replace("GALLERY", gallery), **arguments)
            found.append((method, path, answer.status_code))
            if answer.headers.get("content-type") == "application/json":
                members = {"created_at", "erased_at", "name", "gallery"}
                body = answer.json()
                found.append({name: value for name, value in body.items() if name not in members})
            return answer

        await call("POST", "/galleries", json={"name": gallery, "retention_days": 5, "keep_crops": True})
        await call("PATCH", "/galleries/GALLERY", json={"purpose": "a test"})
        crops = [("images", (str(n), png(n))) for n in range(3)]
        broken = [*crops, ("images", ("broken", b"no image"))]
        enrolled = await call("POST", "/galleries/GALLERY/entries", files=broken, data={"person_id": "ann"})
        first = enrolled.json()["results"][0]["entry_id"]
        found[-1]["results"] = [one.get("error") for one in found[-1]["results"]]
        await call("POST", "/galleries/GALLERY/entries", json={"entries": [{"vector": [0.0] * DIM}]})
        lines = b'{"vector": %s}\nno JSON\n' % str(np.eye(DIM)[0].tolist()).encode()
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "one"}
        for _ in range(2):
            stream = await call("POST", "/galleries/GALLERY/entries/stream", content=lines, headers=headers)
            assert stream.text.splitlines()[-1] == '{"enrolled":1,"failed":1}'
        await call("POST", "/embeddings", files=broken)
        await call("POST", "/embeddings", files=broken[-1:])
        await call("POST", "/compare", files=[("a", ("1", png(1))), ("b", ("2", png(2)))], data={"threshold": "0.5"})
        for body in ({"threshold": 0.2}, {"group_by": "person"}, {"rerank": {}}, {"top_k": 10**6}):
            search = await call("POST", "/galleries/GALLERY/search", json={"entry_id": first, **body})
            assert search.status_code == (413 if "top_k" in body else 200), search.text
            found.pop() if search.status_code == 200 else None
        await call("POST", "/galleries/GALLERY/search", json={"vector": [1.0]})
        assert (await call("GET", f"/galleries/{gallery}/entries/{first}/image")).content[:2] == b"\xff\xd8"
        await call("PATCH", f"/galleries/{gallery}/entries/{first}", json={"camera_id": "c1"})
        assert (await call("GET", "/galleries/GALLERY/entries?limit=2")).json()["next_cursor"] is not None
        await call("GET", "/galleries/GALLERY/persons")
        exported = (await call("POST", "/galleries/GALLERY/export")).content
        headers = {"Content-Type": "application/octet-stream"}
        await call("POST", f"/galleries/{gallery}-copy/import", content=exported, headers=headers)
        await call("POST", f"/galleries/{gallery}-cut/import", content=exported[:-9], headers=headers)
        for method, path in (("POST", "/purge"), ("GET", "/re-embed"), ("DELETE", "/persons?person_id=ann")):
            await call(method, f"/galleries/GALLERY{path}")
        for path in (f"/galleries/{gallery}/entries/{first}", "/galleries/GALLERY", "/model"):
            await call("GET", path)
        assert (await http.get("http://localhost/readyz")).status_code == 200
        await call("DELETE", "/galleries/GALLERY")
    return [
        (one[0], one[1].replace(gallery, "g").replace(str(first), "n"), one[2])
        if isinstance(one, tuple)
        else {name: value for name, value in one.items() if name != "entry_id" and "cursor" not in name}
        for one in found
        if isinstance(one, tuple) or "entries" not in one or isinstance(one["entries"], int)
    ]


def test_responses_do_not_change_if_commands_and_results_are_pickled(bundle: Path, tmp_path: Path) -> None:
    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as container:
            near = await responses(container, "near")
            far = await responses(behind_processes(container), "far")
            assert far == near
            assert {status for _, _, status in (one for one in near if isinstance(one, tuple))} >= {200, 201, 207, 422}

    asyncio.run(play())


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("wrong", [{"at": "a", "problem": "b"}]),
        errors.Overloaded("full", 7),
        errors.Forbidden("no", "search"),
        errors.BoxOutOfBounds("outside"),
        errors.Conflict("taken"),
    ],
)
def test_errors_are_pickled_with_all_their_members(error: PanError) -> None:
    copy = _copy(error)
    assert (type(copy), str(copy), vars(copy), status_of(copy)) == (
        type(error),
        str(error),
        vars(error),
        status_of(error),
    )
