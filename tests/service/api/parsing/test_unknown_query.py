"""Unknown query parameters are refused, and the error lists the known ones."""

import base64
from typing import Any

import httpx
import pytest

from service.api.app import openapi_document
from tests.support.bundles import DIM
from tests.support.pictures import png

MONITORED = ("/healthz", "/readyz", "/metrics")
CALLS = [
    (method, path) for path, item in openapi_document()["paths"].items() if path not in MONITORED for method in item
]
PICTURE = base64.b64encode(png(1)).decode()
ENTRY = {"vector": [1.0] * DIM, "person_id": "p1", "camera_id": "c1"}


def body(method: str, path: str) -> dict[str, Any]:
    """Valid arguments of the call, so that only its query is invalid."""
    if path.endswith("/compare"):
        return {"json": {"a": [PICTURE], "b": [PICTURE]}}
    if path.endswith(("/embeddings", "/explain")):
        return {"json": {"images": [PICTURE]}}
    if path.endswith("/search"):
        return {"json": {"vector": ENTRY["vector"]}}
    if path.endswith("/stream"):
        return {"content": b"", "headers": {"Content-Type": "application/x-ndjson"}}
    if path.endswith("/import"):
        return {"content": b"", "headers": {"Content-Type": "application/octet-stream"}}
    if method == "post" and path.endswith("/entries"):
        return {"files": {"images": png(1)}}
    if method == "post" and path == "/v1/galleries":
        return {"json": {"name": "more"}}
    return {"json": {}} if method == "patch" else {}


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_refuses_unknown_query_parameters(api: httpx.Client, gallery: str, method: str, path: str) -> None:
    enrolled = api.post(f"/v1/galleries/{gallery}/entries", json={"entries": [ENTRY]}).json()
    before = [api.get("/v1/galleries").json()["galleries"], api.get(f"/v1/galleries/{gallery}/entries").json()]
    entry_id = enrolled["results"][0]["entry_id"]
    url = path.format(gallery=gallery, entry_id=entry_id)
    for query in ({"nonsense": "1"}, {"nonsense": ""}, {"n" * 4000: "1"}):
        needed = {"person_id": "p1"} if method == "delete" and path.endswith("/persons") else {}
        answer = api.request(method, url, params={**needed, **query}, **body(method, path))
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), answer.text
        detail = answer.json()["detail"]
        assert "known" in detail
        assert len(answer.content) < 2000  # the error quotes at most a part of the input
    assert before == [api.get("/v1/galleries").json()["galleries"], api.get(f"/v1/galleries/{gallery}/entries").json()]


@pytest.mark.parametrize("path", MONITORED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_monitoring_calls_ignore_query_parameters(api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, path, params=[("collect[]", "x"), ("collect[]", "y"), ("t", "1")])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == api.get(path).headers["content-type"]


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js"])
def test_pages_refuse_unknown_query_parameters(api: httpx.Client, path: str) -> None:
    assert api.get(path, params={"nonsense": "1"}).status_code == 422


def test_the_error_lists_known_parameters_and_suggests_the_nearest(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}"
    detail = api.get(f"{path}/entries", params={"person": "p2"}).json()["detail"]
    assert "did you mean person_id?" in detail
    assert "cursor, limit, person_id, camera_id" in detail
    assert "has no parameters" in api.get(path, params={"limit": "1"}).json()["detail"]
    raw = {"content": png(1), "headers": {"Content-Type": "image/png"}}
    assert "did you mean top_k?" in api.post(f"{path}/search", params={"topk": "1"}, **raw).json()["detail"]  # type: ignore[arg-type]
    wrong = api.post(f"{path}/search", json={"vector": ENTRY["vector"], "treshold": 0.5}).json()
    assert "did you mean threshold?" in wrong["detail"]
    assert [one["at"] for one in wrong["errors"]] == ["treshold"]
    twice = api.get(f"{path}/entries", params=[("person_id", "p1"), ("person_id", "p2")])
    assert (twice.status_code, "more than once" in twice.json()["detail"]) == (422, True)
