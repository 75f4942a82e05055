"""Bodies that try to exhaust memory or time: JSON, forms, metadata and options."""

import json
from collections.abc import Callable

import pytest

from benchmarks.common.served import MIB
from tests.attack.conftest import VECTOR, Target, problem
from tests.support.pictures import png

G = "/v1/galleries"
MANY = 300_000
UNKNOWN = b",".join(b'"k%d":1' % n for n in range(MANY))
VECTOR_JSON = json.dumps(VECTOR).encode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (G, b"{%s}" % UNKNOWN),
        (f"{G}/g/search", b'{"vector":%s,%s}' % (VECTOR_JSON, UNKNOWN)),
        (f"{G}/g/search", b'{"vector":%s,"rerank":{%s}}' % (VECTOR_JSON, UNKNOWN)),
        (f"{G}/g/search", b'{"vector":%s,"attributes":{%s}}' % (VECTOR_JSON, UNKNOWN)),
        (f"{G}/g/search", b'{"vector":%s,"attributes":{"a":[%s]}}' % (VECTOR_JSON, b"1," * MANY + b"1")),
        (f"{G}/g/search", b'{"vector":%s,"cameras":[%s]}' % (VECTOR_JSON, b'"c",' * MANY + b'"c"')),
        (f"{G}/g/search", b'{"vector":%s,"cameras":[%s]}' % (VECTOR_JSON, b"{}," * MANY + b"{}")),
        (f"{G}/g/search", b'{"entry_ids":[%s]}' % (b"1," * MANY + b"1")),
        (f"{G}/g/search", b'{"vectors":[%s]}' % (b"[]," * MANY + b"[]")),
        (f"{G}/g/entries", b'{"entries":[{"vector":%s,%s}]}' % (VECTOR_JSON, UNKNOWN)),
        (f"{G}/g/entries", b'{"entries":[{"vector":%s,"attributes":{%s}}]}' % (VECTOR_JSON, UNKNOWN)),
        (f"{G}/g/entries", b'{"entries":[%s]}' % (b'{"vector":1},' * MANY + b"{}")),
        (f"{G}/g/entries", b'{"entries":[%s]}' % (b"1," * MANY + b"1")),
        ("/v1/embeddings", b'{"images":["","%s"]}' % (b"x" * 20_000_000)),
        ("/v1/embeddings", b'{"images":["",{%s}]}' % UNKNOWN),
    ],
)
def test_a_json_bomb_is_refused_with_bounded_memory(target: Target, path: str, body: bytes) -> None:
    before = target.server.resident()
    target.reset_peak()
    answer = target.post(path, body)
    assert answer.status_code in (413, 415, 422)
    problem(answer)
    assert target.peak() - before < 160 * MIB + 4 * len(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("path", [G, f"{G}/g/search", f"{G}/g/entries", f"{G}/g/entries/stream", f"{G}/none/import"])
def test_deeply_nested_json_causes_no_server_error(target: Target, path: str, opening: bytes) -> None:
    kinds = {"stream": "application/x-ndjson", "import": "application/octet-stream"}
    kind = kinds.get(path.rpartition("/")[2], "application/json")
    for depth in (900, 1100, 100_000):
        answer = target.post(path, b'{"rerank":' + opening * depth, kind)
        assert answer.status_code in (200, 413, 422)
        closed = {b"[": b"]", b'{"a":': b"}"}[opening]
        answer = target.post(path, b'{"attributes":' + opening * depth + b"1" + closed * depth + b"}", kind)
        assert answer.status_code in (200, 413, 422)  # 200: in a stream only the line fails


def part(name: bytes, value: bytes, file: bytes | None = None) -> bytes:
    names = b'name="' + name + b'"' + (b"" if file is None else b'; filename="' + file + b'"')
    return b"--b\r\nContent-Disposition: form-data; " + names + b"\r\n\r\n" + value + b"\r\n"


END = b"--b--\r\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda: part(b"x", b"1") * 100_000,
        lambda: part(b"images", b"1", b"f") * 100_000,
        lambda: b"--b\r\nX: " + b"a" * 10_000_000,
        lambda: b"--b\r\n" + b"X: a\r\n" * 1_000_000,
        lambda: b"--b\r\nContent-Disposition: form-data; " + b'a="b"; ' * 500_000 + b"\r\n\r\nx\r\n" + END,
        lambda: b'--b\r\nContent-Disposition: form-data; name="' + b'\\"' * 500_000 + b'"\r\n\r\nx\r\n' + END,
        lambda: b"x" * 10_000_000,
        lambda: b"\r\n" * 5_000_000,
        lambda: part(b"images", b"\r\n--a" * 1_000_000, b"f") + END,
        lambda: part(b"images", b"\r" * 5_000_000, b"f"),
        lambda: part(b"metadata", b"[" + b"1," * MANY + b"1]") + part(b"images", png(1), b"f") + END,
        lambda: part(b"metadata", b"[{" + UNKNOWN + b"}]") + part(b"images", png(1), b"f") + END,
        lambda: part(b"metadata", b"[" * 100_000) + part(b"images", png(1), b"f") + END,
        lambda: part(b"boxes", b"[" * 100_000) + part(b"images", png(1), b"f") + END,
        lambda: part(b"boxes", b"[" + b"[0,0,1e999,1]," * MANY + b"[]]") + part(b"images", png(1), b"f") + END,
        lambda: part(b"attributes", b"{" + UNKNOWN + b"}") + part(b"images", png(1), b"f") + END,
        lambda: b"--b\r\nContent-Disposition: form-data; name*=utf-8''%ff%00\r\n\r\nx\r\n" + END,
        lambda: part(b"images", b"--c\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" * 1000, b"f") + END,
        lambda: END,
        lambda: b"",
    ],
)
def test_a_form_bomb_is_refused_with_bounded_memory(target: Target, make: Callable[[], bytes]) -> None:
    before = target.server.resident()
    target.reset_peak()
    answer = target.post(f"{G}/g/entries", make(), "multipart/form-data; boundary=b")
    assert answer.status_code in (413, 415, 422)
    problem(answer)
    assert target.peak() - before < 160 * MIB


@pytest.mark.parametrize("boundary", ["", "b" * 20_000, "\x7f", '"', "a b", "b\u00e9"])
def test_an_invalid_boundary_is_refused(target: Target, boundary: str) -> None:
    kind = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: " + kind
    answer = target.raw(head + b"\r\nContent-Length: 5\r\n\r\n--b\r\n")
    assert answer.split()[1] in (b"400", b"422")


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 2**63},
        {"top_k": 10**30},
        {"rerank": {"k1": 10**6}},
        {"rerank": {"candidates": 10**6}},
        {"false_positive_rate": 5e-324},
        {"captured_from": "9999-12-31T23:59:59-12:00", "cameras": ["c" * 1000]},
        {"attributes": {"a": [[]]}},
        {"attributes": {"a" * 1000: 1}},
        {"fingerprint": "f" * 1_000_000},
        {"vector": [VECTOR]},
        {"vector": {"0": 1}},
        {"vector": "\u0000" * 88},
    ],
)
def test_options_out_of_range_are_refused(target: Target, options: dict[str, object]) -> None:
    answer = target.http.post(f"{G}/g/search", json={"vector": VECTOR, **options})
    assert 400 <= answer.status_code < 500
    problem(answer)
