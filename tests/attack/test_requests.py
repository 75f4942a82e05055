"""Hostile paths, methods, headers and queries: each is refused with a problem document."""

import gzip
import json

import pytest

from tests.attack.conftest import VECTOR, Target, problem

G = "/v1/galleries"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{G}/%2e%2e", 422),
        (f"{G}/..", 422),
        (f"{G}/../galleries/g", 404),
        (f"{G}/.%2e/g", 404),
        (f"{G}/..%2f..%2fetc%2fpasswd", 404),
        (f"{G}/g%00", 422),
        (f"{G}/g%0d%0aX-Evil:%201", 422),
        (f"{G}/g%ff", 422),
        (f"{G}/%67", 200),  # g
        (f"{G}/%EF%BD%87", 422),  # a full-width g, which Unicode normalisation would turn into g
        (f"{G}/G", 404),
        (f"{G}/g/", 404),
        (f"{G}//g", 404),
        (f"/{G}/g", 404),
        (f"{G}/g;a=b", 422),
        (f"{G}/{'g' * 4000}", 422),
        (f"{G}/g/entries/{'9' * 4000}", 404),
        (f"{G}/g/entries/{2**63}", 422),
        (f"{G}/g/entries/-1", 404),
        (f"{G}/g/entries/1.0", 404),
        (f"{G}/g/entries/+1", 404),
        (f"{G}/g/entries/1;2", 404),
        (f"{G}/g/entries/%D9%A1", 404),  # an Arabic digit one
        (f"{G}/g/entries?limit=0", 422),
        (f"{G}/g/entries?limit={'9' * 30}", 422),
        (f"{G}/g/entries?limit=1e3", 422),
        (f"{G}/g/entries?cursor={'9' * 30}", 422),
        (f"{G}/g/entries?cursor=-1", 422),
        (f"{G}/g/entries?cursor=x'--", 422),
        (f"{G}/g/entries?limit=1&limit=2", 422),
        (f"{G}/g/entries?person=p1", 422),
        (f"{G}?limit=1", 422),
        ("/docs/../../etc/passwd", 404),
        ("http://elsewhere.example/v1/galleries/nothing", 404),
    ],
)
def test_a_path_is_not_normalised_into_another_resource(target: Target, path: str, status: int) -> None:
    answer = target.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"X-Evil" not in answer.partition(b"\r\n\r\n")[0]
    if status != 200:
        assert problem(answer)["status"] == status


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "PUT", "FOO", "get", "PRI", "GET\x0b"])
def test_an_unsupported_method_is_refused(target: Target, method: str) -> None:
    answer = target.raw(f"{method} {G}/g HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"400", b"405")


def test_unknown_paths_and_methods_create_no_metrics(target: Target) -> None:
    def lines() -> int:
        return sum(line.startswith("pan_") for line in target.http.get("/metrics").text.splitlines())

    target.http.request("PROPFIND", "/x0")
    target.http.get("/metrics")
    before = lines()
    for n in range(50):
        target.http.request("REPORT" if n % 2 else "PROPFIND", f"/x{n}/{n}")
        target.http.get(f"{G}/none{n}/entries/{n + 1}")
        target.http.get("/healthz", headers={"X-Request-ID": f"r{n}", "traceparent": f"00-{n:032x}-{n:016x}-01"})
    assert lines() - before < 50


@pytest.mark.parametrize(
    "sent", ['a"}\\n{"level":"error"}', "a b", "a" * 65, "", "%0a", "\u00e9".encode().decode("latin-1")]
)
def test_an_invalid_request_id_is_replaced(target: Target, sent: str) -> None:
    answer = target.http.get(f"{G}/g", headers=[(b"X-Request-ID", sent.encode("latin-1"))])
    assert answer.headers["x-request-id"] != sent
    assert answer.headers["x-request-id"].isalnum()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
        ("application/json, text/plain", b"{}", 415),
        ("application/json; charset=utf-16", json.dumps({"vector": VECTOR}).encode("utf-16"), 422),
        ("application/json", gzip.compress(json.dumps({"vector": VECTOR}).encode(), mtime=0), 422),
        ("application/json", b"\xef\xbb\xbf{}", 422),
        ("application/json", b'{"vector":[NaN]}', 422),
        ("application/json", b'{"vector":[1e999999999]}', 422),
        ("application/json", b'{"vector":[' + b"9" * 1_000_000 + b"]}", 422),
        ("application/json", b'{"vector":"\\ud800"}', 422),
        ("application/x-www-form-urlencoded", b"vector=1&" * 10_000, 415),
    ],
)
def test_a_body_must_match_its_content_type(target: Target, kind: str, body: bytes, status: int) -> None:
    answer = target.post(f"{G}/g/search", body, kind)
    assert answer.status_code == problem(answer)["status"] == status


def test_range_conditional_and_override_headers_have_no_effect(target: Target) -> None:
    plain = target.http.get(f"{G}/g/entries").content
    for name, value in [
        ("Range", "bytes=" + ",".join(f"{n}-" for n in range(3000))),
        ("If-None-Match", "*"),
        ("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("Accept", "text/html"),
        ("Accept-Encoding", "gzip, br, " * 1000 + "identity;q=0"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/docs"),
        ("X-Forwarded-Prefix", "/evil"),
    ]:
        answer = target.http.get(f"{G}/g/entries", headers={name: value})
        assert (answer.status_code, answer.content) == (200, plain)


@pytest.mark.parametrize(
    "ranges",
    [
        "",
        "-",
        "5-1",
        "9999999999-",
        "a-b",
        f"0-0,{'9' * 5000}-",
        "-0",
        "1--1",
        "0-," * 5000 + "0-",
        ",".join(f"{n}-" for n in range(3000)),
        ",".join(f"{9 * n}-{9 * n + 1}" for n in range(2000)),
    ],
)
def test_range_requests_for_a_static_file_are_bounded(target: Target, ranges: str) -> None:
    answer = target.http.get("/docs/swagger-ui-bundle.js", headers={"Range": f"bytes={ranges}"})
    assert answer.status_code in (200, 206, 400, 416)
    assert len(answer.content) < 2_000_000


@pytest.mark.parametrize("key", ["", "k" * 129, "k" * 30_000])
def test_an_invalid_idempotency_key_is_refused(target: Target, key: str) -> None:
    body = json.dumps({"entries": [{"vector": VECTOR}]}).encode()
    answer = target.post(f"{G}/g/entries", body, **{"Idempotency-Key": key})
    assert answer.status_code == 422
    assert problem(answer)["errors"][0]["at"] == "header.Idempotency-Key"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},  # another port
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "attacker.example"},
        {"Host": "localhost.attacker.example:80"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "kind", "body"),
    [
        ("POST", f"{G}/g/entries", "multipart/form-data; boundary=b", b"--b--\r\n"),
        ("POST", f"{G}/g/purge", "text/plain", b""),
        ("DELETE", f"{G}/g", "text/plain", b""),
        ("GET", f"{G}/g/entries", "text/plain", b""),
        ("GET", "/metrics", "text/plain", b""),
    ],
)
def test_requests_from_pages_of_other_sites_are_refused(
    target: Target, headers: dict[str, str], method: str, path: str, kind: str, body: bytes
) -> None:
    answer = target.http.request(method, path, content=body, headers={"Content-Type": kind, **headers})
    assert (answer.status_code, problem(answer)["code"]) == (403, "foreign-page")
    assert not [name for name in answer.headers if name.startswith("access-control")]
