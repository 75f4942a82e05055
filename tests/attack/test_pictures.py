"""Hostile images on every route that accepts one, polyglot files, and invalid boxes."""

import base64
import json

import pytest
from PIL import Image

from tests.attack.conftest import Target, problem
from tests.support.pictures import encode, hostile, person, png

SCRIPT = b"<script>alert(1)</script>"
HOSTILE = hostile()


@pytest.mark.parametrize("name", HOSTILE)
def test_every_route_refuses_a_hostile_image(target: Target, name: str) -> None:
    data, status = HOSTILE[name]
    text = base64.b64encode(data).decode()
    for answer in (
        target.post("/v1/embeddings", data, "image/png"),
        target.post("/v1/galleries/g/search", data, "image/jpeg"),
        target.post("/v1/galleries/g/entries", data, "application/octet-stream"),
        target.http.post("/v1/embeddings", json={"images": [text]}),
        target.http.post("/v1/galleries/g/entries", json={"entries": [{"image": text}]}),
        target.http.post("/v1/compare", files={"a": ("a", data), "b": ("b", data)}),
        target.http.post(
            "/v1/galleries/g/entries", data={"boxes": "[[0,0,40,80]]"}, files={"images": ("<script>", data)}
        ),
    ):
        assert answer.status_code in (status, 422)  # 422 if several images were sent
        problem(answer)
    line = json.dumps({"image": text}).encode() + b"\n"
    streamed = target.post("/v1/galleries/g/entries/stream", line, "application/x-ndjson").text.splitlines()
    assert "error" in json.loads(streamed[0])
    assert json.loads(streamed[1]) == {"enrolled": 0, "failed": 1}


@pytest.mark.parametrize(
    "picture",
    [
        encode(person(1), "JPEG", comment=SCRIPT, exif=b"Exif\0\0" + SCRIPT) + SCRIPT,
        png(1) + SCRIPT,
        encode(person(1), "WEBP", xmp=SCRIPT) + SCRIPT,
    ],
)
def test_a_stored_crop_drops_html_that_was_appended_to_the_image(target: Target, picture: bytes) -> None:
    http = target.http
    assert http.post("/v1/galleries", json={"name": "kept", "keep_crops": True}).status_code == 201
    made = http.post("/v1/galleries/kept/entries", content=picture, headers={"Content-Type": "text/html"})
    assert made.status_code == 415
    made = http.post("/v1/galleries/kept/entries", content=picture, headers={"Content-Type": "image/svg+xml"})
    assert made.status_code == 201, made.text
    entry = made.json()["results"][0]["entry_id"]
    kept = http.get(f"/v1/galleries/kept/entries/{entry}/image")
    assert kept.headers["content-type"] == "image/jpeg"
    assert kept.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in kept.headers["content-security-policy"]
    assert SCRIPT not in kept.content
    assert http.delete("/v1/galleries/kept").status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/galleries/g/entries"])
def test_the_total_size_of_boxes_is_limited(target: Target, path: str) -> None:
    frame = encode(Image.new("RGB", (4000, 4000)))
    boxes = json.dumps([[0, 0, 4000, 4000]] * 250)
    answer = target.http.post(path, data={"boxes": boxes}, files={"images": ("x", frame)})
    assert (answer.status_code, problem(answer)["code"]) == (413, "too-large")
    assert "4,000,000,000 pixels together" in problem(answer)["detail"]


@pytest.mark.parametrize(
    "boxes",
    [
        "[[0,0,1e9,1e9]]",
        "[[-1,0,10,10]]",
        "[[0,0,0,0]]",
        "[[0,0,40,80,1]]",
        "[[true,0,40,80]]",
        "[" + ",".join(["[0,0,40,80]"] * 300) + "]",
        '[{"x":0}]',
        "[[0,0,40,1e400]]",
        "null",
        "[[]]",
        '"[[0,0,40,80]]"',
    ],
)
def test_invalid_or_too_many_boxes_are_refused(target: Target, boxes: str) -> None:
    answer = target.http.post("/v1/embeddings", data={"boxes": boxes}, files={"images": ("x", png(1))})
    assert answer.status_code in (413, 422)
    problem(answer)
