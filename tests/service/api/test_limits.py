"""Limits on the size of one request."""

import select
import socket

import httpx
import pytest
from PIL import Image

from tests.service.api.calls import send
from tests.support.pictures import encode, png


def test_a_body_with_too_large_a_content_length_is_refused_before_it_is_sent(small: httpx.Client) -> None:
    host, port = small.base_url.host, small.base_url.port
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b", "image/png"])
def test_a_body_without_content_length_is_refused_while_it_arrives(small: httpx.Client, kind: str) -> None:
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    begin = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=10) as connection:
        connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(begin), begin))
        answered: list[object] = []
        for _ in range(1000):  # without an end
            connection.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            answered, _, _ = select.select([connection], [], [], 0.01)
            if answered:
                break
        assert answered
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_an_image_over_the_limit_of_images_fails_alone(small: httpx.Client) -> None:
    answer = send(small, png(1), b"x" * 70_000, png(2))
    assert answer.status_code == 207
    assert [item.get("error", {}).get("code") for item in answer.json()["embeddings"]] == [
        None,
        "image-too-large",
        None,
    ]
    raw = small.post("/v1/embeddings", content=b"x" * 70_000, headers={"content-type": "image/png"})
    assert raw.status_code == 413
    wide = small.post(
        "/v1/embeddings", content=encode(Image.new("RGB", (400, 300))), headers={"content-type": "image/png"}
    )
    assert (wide.status_code, wide.json()["code"]) == (413, "image-too-large")


def test_too_many_images_or_fields_are_refused(small: httpx.Client) -> None:
    answer = send(small, *[png(1)] * 5)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    fields = {f"f{n}": "x" for n in range(6000)}
    answer = small.post("/v1/embeddings", files=[("images", ("x", png(1)))], data=fields)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    small.post("/v1/galleries", json={"name": "few"})
    entries = [{"vector": [1.0] * 64}] * 5
    assert small.post("/v1/galleries/few/entries", json={"entries": entries}).status_code == 413


def test_json_with_too_many_values_is_refused(small: httpx.Client) -> None:
    for value in ("1", "[]", "{}"):
        body = f'{{"images": [{",".join([value] * 17_000)}]}}'  # 4096 for each of 4 images are accepted
        answer = small.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
        assert "more than 16,384 values" in answer.json()["detail"]


@pytest.mark.parametrize("depth", [60, 300, 1000, 90_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deeply_nested_json_is_refused(small: httpx.Client, depth: int, opening: str, closing: str) -> None:
    depth = min(depth, 199_000 // len(opening + closing) - 100)
    small.post("/v1/galleries", json={"name": "deep"})
    deep = opening * depth + "1" + closing * depth
    bodies = [deep, f'{{"vector": {deep}}}', f'{{"images": {deep}}}', f'{{"entries": [{{"vector": {deep}}}]}}']
    for body in (*bodies, f'{{"entries": [{{"vector": [1], "attributes": {deep}}}]}}'):
        for call in ("/v1/embeddings", "/v1/galleries/deep/search", "/v1/galleries/deep/entries", "/v1/galleries"):
            headers = {"content-type": "application/json", "idempotency-key": "one"}
            answer = small.post(call, content=body, headers=headers)
            assert answer.status_code in ({413, 422} if depth > 100 else {422}), (call, body[:40])
