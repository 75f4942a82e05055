"""HTTP: methods, headers, content types, request ids, problem documents."""

import gzip
import re

import httpx
import pytest

from tests.service.api.calls import b64, files, problem
from tests.support.pictures import png

MULTIPART = "multipart/form-data; boundary=b"


PART = b"--b\r\nContent-Disposition: form-data; "


def test_unknown_routes_and_methods_are_problem_documents(api: httpx.Client) -> None:
    problem(api.get("/nowhere"), 404, "not-found")
    answer = api.put("/v1/galleries")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    answer = api.get("/v1/galleries/none/entries/stream")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert api.put("/v1/galleries/none/entries/7").headers["allow"] == "DELETE, GET, HEAD, PATCH"
    problem(api.get("/v1/galleries/none"), 404, "not-found")
    problem(api.get("/v1/galleries/-bad-"), 422, "invalid-request")
    for entry in ("x", "0" * 20, "9" * 5000, "-1", "1.0"):
        problem(api.get(f"/v1/galleries/none/entries/{entry}"), 404, "not-found")
    problem(api.get("/v1/galleries/none/entries/0"), 422, "invalid-request")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/model", "/v1/galleries"])
def test_head_has_the_headers_of_get_and_no_body(api: httpx.Client, path: str) -> None:
    said, asked = api.get(path), api.head(path)
    assert (asked.status_code, asked.content) == (said.status_code, b"")
    for name in ("content-type", "content-length", "location", "cache-control"):
        assert path == "/metrics" or asked.headers.get(name) == said.headers.get(name), name
    assert asked.headers["x-request-id"]


def test_head_of_an_unknown_path_is_a_problem_and_is_counted_as_head(api: httpx.Client, gallery: str) -> None:
    assert api.head("/v1/galleries/none").status_code == 404
    assert api.head(f"/v1/galleries/{gallery}/search").status_code == 405
    assert api.head(f"/v1/galleries/{gallery}").status_code == 200
    text = api.get("/metrics").text
    assert re.search(r'pan_requests_total{method="HEAD",route="/v1/galleries/{gallery}",status="200"}', text)


def test_a_compressed_body_is_refused(api: httpx.Client, gallery: str) -> None:
    body = gzip.compress(b'{"name": "packed"}')
    kinds = {
        "": "application/json",
        f"/{gallery}/entries/stream": "application/x-ndjson",
        f"/{gallery}/import": "application/octet-stream",
        f"/{gallery}/search": "application/json",
    }
    for path, kind in kinds.items():
        headers = {"content-type": kind, "content-encoding": "gzip"}
        answer = api.post(f"/v1/galleries{path}", content=body, headers=headers)
        problem(answer, 415, "unsupported-body")
        assert "gzip: send the body without compression" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "application/json", 422, "invalid-request"),
        (b"{", "application/json", 422, "invalid-request"),
        (b"[]", "application/json", 422, "invalid-request"),
        (b'{"images": "x"}', "application/json", 422, "invalid-request"),
        (b'{"images": [7]}', "application/json", 422, "invalid-request"),
        (b'{"images": []}', "application/json", 422, "invalid-request"),
        (b"[" * 100_000, "application/json", 422, "invalid-request"),
        (b"\xff\xfe", "application/json", 422, "invalid-request"),
        (b"x", "text/plain", 415, "unsupported-body"),
        (b"x", "", 415, "unsupported-body"),
        (b"x", "multipart/form-data", 422, "invalid-request"),
        (b"x", MULTIPART, 422, "invalid-request"),
        (b"--b--\r\n", MULTIPART, 422, "invalid-request"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", MULTIPART, 422, "invalid-request"),
        (PART + b'name="images"; filename="a"\r\n\r\nxxx', MULTIPART, 422, "invalid-request"),
        (PART + b'name="x"\r\n\r\n\xff\r\n--b--\r\n', MULTIPART, 422, "invalid-request"),
    ],
)
def test_an_unreadable_body_is_refused(api: httpx.Client, body: bytes, kind: str, status: int, code: str) -> None:
    problem(api.post("/v1/embeddings", content=body, headers={"content-type": kind}), status, code)


def test_unknown_options_are_refused_in_every_kind_of_body(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/search"
    problem(api.post("/v1/embeddings?encodings=base64", files=files(png(1))), 422, "invalid-request")
    problem(api.post(path, files=files(png(1)), data={"topk": "3"}), 422, "invalid-request")
    problem(api.post(path, json={"images": [b64(png(1))], "topk": 3}), 422, "invalid-request")
    problem(api.post(f"{path}?topk=3", content=png(1), headers={"content-type": "image/png"}), 422, "invalid-request")
    problem(api.post(f"/v1/galleries/{gallery}/entries", json={"entries": [], "entry": 1}), 422, "invalid-request")


def test_every_response_has_a_request_id_and_keeps_that_of_the_caller(api: httpx.Client) -> None:
    assert api.get("/healthz").headers["x-request-id"] != api.get("/healthz").headers["x-request-id"]
    assert api.get("/nowhere", headers={"x-request-id": "trace-7"}).headers["x-request-id"] == "trace-7"
    forged = api.get("/healthz", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert forged != "a b\tc"
    assert api.get("/healthz").headers["x-content-type-options"] == "nosniff"


def test_responses_have_security_headers(api: httpx.Client) -> None:
    for path in ("/v1/galleries", "/v1/model", "/nowhere", "/docs", "/openapi.json"):
        headers = api.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers.get_list("content-security-policy")[1:] == []
        assert headers["referrer-policy"] == "no-referrer"
