"""Kept crops: on request only, encoded again without metadata, and erased with their entries."""

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from service.core.settings import Settings
from tests.support.bundles import DIM
from tests.support.pictures import encode, person
from tests.support.servers import running

SECRET = b"48.8584N 2.2945E"


@contextmanager
def keeping(bundle: Path, data: Path, **options: Any) -> Iterator[httpx.Client]:
    """A service with a gallery `g` that keeps crops."""
    with running(Settings(bundle=bundle, data=data)) as http:
        made = http.post("/v1/galleries", json={"name": "g", "keep_crops": True, **options})
        assert (made.status_code, made.json()["keep_crops"]) == (201, True)
        yield http


def enrol(http: httpx.Client, *pictures: bytes, gallery: str = "g", **known: Any) -> list[int]:
    entries = [{"image": base64.b64encode(picture).decode(), **known} for picture in pictures]
    answer = http.post(f"/v1/galleries/{gallery}/entries", json={"entries": entries})
    assert answer.status_code == 201, answer.text
    return [result["entry_id"] for result in answer.json()["results"]]


def image(http: httpx.Client, entry_id: int, gallery: str = "g") -> bytes:
    answer = http.get(f"/v1/galleries/{gallery}/entries/{entry_id}/image")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), answer.text
    return answer.content


def difference(kept: bytes, original: Image.Image) -> float:
    """The mean difference of two images of one size, in levels of 255."""
    found = Image.open(BytesIO(kept))
    assert (found.format, found.mode, found.size) == ("JPEG", "RGB", original.size)
    return float(np.abs(np.asarray(found, np.float64) - np.asarray(original, np.float64)).mean())


def talkative(upright: Image.Image) -> bytes:
    """A rotated JPEG with a location in every kind of metadata."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8825)[1] = SECRET.decode()
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    return (
        encode(turned, "JPEG", quality=98, subsampling=0, exif=exif, icc_profile=SECRET, comment=SECRET, xmp=SECRET)
        + SECRET
    )


def anywhere(data: Path, kept: bytes) -> bool:
    """Whether a part of these bytes is in any file of a data folder. SQLite splits long values among its pages."""
    held = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    return any(kept[start : start + 64] in held for start in range(700, len(kept) - 64, 64))


def test_a_kept_crop_is_upright_with_its_colours_and_without_metadata(bundle: Path, tmp_path: Path) -> None:
    figure = person(1)
    sent = talkative(figure)
    assert sent.count(SECRET) > 4
    with keeping(bundle, tmp_path) as http:
        (entry,) = enrol(http, sent)
        kept = image(http, entry)
        assert http.get(f"/v1/galleries/g/entries/{entry}").json()["image"] is True
        assert [one["image"] for one in http.get("/v1/galleries/g/entries").json()["entries"]] == [True]
    assert difference(kept, figure) < 4
    with Image.open(BytesIO(kept)) as found:
        assert isinstance(found, JpegImageFile)
        assert not found.getexif()
        assert set(found.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert {layer[1:3] for layer in found.layer} == {(1, 1)}  # no chroma subsampling
    for said in (SECRET, b"Exif", b"ICC_PROFILE", b"http://ns.adobe.com"):
        assert said not in kept
    assert not any(SECRET in path.read_bytes() for path in tmp_path.iterdir())
    with sqlite3.connect(tmp_path / "pan.sqlite3") as db:
        assert db.execute("SELECT who, count FROM audit WHERE action = 'image'").fetchall() == [("127.0.0.1", 1)]
    db.close()


def test_only_the_boxes_of_a_frame_are_kept(bundle: Path, tmp_path: Path) -> None:
    frame = Image.new("RGB", (400, 200), (7, 200, 77))
    frame.paste(person(1), (20, 30))
    frame.paste(person(2), (300, 50))
    boxes = [[20, 30, 64, 128], [300, 50, 64, 128]]
    with keeping(bundle, tmp_path) as http:
        body = {"boxes": str(boxes), "metadata": "[{}, {}]"}
        answer = http.post("/v1/galleries/g/entries", files={"images": encode(frame)}, data=body)
        assert answer.status_code == 201
        kept = [image(http, result["entry_id"]) for result in answer.json()["results"]]
    assert [difference(one, person(n)) < 4 for n, one in enumerate(kept, 1)] == [True, True]


def test_a_large_crop_is_kept_at_a_smaller_size(bundle: Path, tmp_path: Path) -> None:
    pictures = [person(1, height=3000, width=1500), person(2).resize((20_000, 16)), person(3, height=1024, width=300)]
    with keeping(bundle, tmp_path) as http:
        entries = enrol(http, *map(encode, pictures))
        kept = [image(http, entry) for entry in entries]
        assert [Image.open(BytesIO(one)).size for one in kept] == [(512, 1024), (1024, 16), (300, 1024)]
        again = enrol(http, *kept)
        hits = [http.post("/v1/galleries/g/search", json={"entry_id": one, "top_k": 1}).json()["hits"] for one in again]
        assert [hit[0]["entry_id"] for hit in hits] == entries
        assert all(hit[0]["score"] > 0.999 for hit in hits)


def test_an_entry_without_an_image_gives_404(bundle: Path, tmp_path: Path) -> None:
    picture, vector = encode(person(1)), np.eye(DIM)[0].tolist()
    with running(Settings(bundle=bundle, data=tmp_path)) as http:
        assert http.post("/v1/galleries", json={"name": "g"}).json()["keep_crops"] is False
        (before,) = enrol(http, picture)
        assert http.patch("/v1/galleries/g", json={"keep_crops": True}).json()["keep_crops"] is True
        mixed = [{"vector": vector}, {"image": base64.b64encode(picture).decode()}, {"vector": vector}]
        results = http.post("/v1/galleries/g/entries", json={"entries": mixed}).json()["results"]
        ids = [before, *(result["entry_id"] for result in results)]
        listed = http.get("/v1/galleries/g/entries").json()["entries"]
        assert [one["image"] for one in listed] == [False, False, True, False]
        answers = [http.get(f"/v1/galleries/g/entries/{one}/image") for one in ids]
        assert [answer.status_code for answer in answers] == [404, 404, 200, 404]
        assert {answer.json()["code"] for answer in answers if answer.status_code == 404} == {"no-image"}
        assert http.get("/v1/galleries/g/entries/999/image").json()["code"] == "not-found"
        http.post("/v1/galleries", json={"name": "other", "keep_crops": True})
        assert http.get(f"/v1/galleries/other/entries/{ids[2]}/image").json()["code"] == "not-found"
        relabelled = http.patch(f"/v1/galleries/g/entries/{ids[2]}", json={"person_id": "a"}).json()
        assert (relabelled["image"], relabelled["person_id"]) == (True, "a")
        assert http.patch("/v1/galleries/g", json={"purpose": "another"}).json()["keep_crops"] is True
        refused: list[object] = [None, "perhaps", {}]
        for wrong in refused:
            assert http.patch("/v1/galleries/g", json={"keep_crops": wrong}).status_code == 422


@pytest.mark.parametrize("erasure", ["keep no more", "person", "gallery", "retention"])
def test_no_file_contains_an_erased_crop(bundle: Path, tmp_path: Path, erasure: str) -> None:
    with keeping(bundle, tmp_path) as http:
        old = {"captured_at": "2020-01-01T00:00:00Z"} if erasure == "retention" else {}
        entries = enrol(http, *(encode(person(n)) for n in range(20)), person_id="jane", **old)
        kept = [image(http, entry) for entry in entries]
        (other,) = enrol(http, encode(person(30)), person_id="john")
        assert all(anywhere(tmp_path, one) for one in kept)
        if erasure == "keep no more":
            assert http.patch("/v1/galleries/g", json={"keep_crops": False}).status_code == 200
            assert http.get(f"/v1/galleries/g/entries/{entries[0]}").json()["image"] is False
            assert http.get(f"/v1/galleries/g/entries/{entries[0]}/image").json()["code"] == "no-image"
            assert len(http.post("/v1/galleries/g/search", json={"entry_id": other}).json()["hits"]) == 10
        elif erasure == "person":
            assert http.delete("/v1/galleries/g/persons?person_id=jane").json()["overwritten"] is True
        elif erasure == "gallery":
            assert http.delete("/v1/galleries/g").json()["overwritten"] is True
        else:
            assert http.patch("/v1/galleries/g", json={"retention_days": 100}).status_code == 200
            assert http.post("/v1/galleries/g/purge").json()["overwritten"] is True
            assert http.get("/v1/galleries/g").json()["entries"] == 1
        assert not any(anywhere(tmp_path, one) for one in kept)
        if erasure in ("person", "retention"):
            assert anywhere(tmp_path, image(http, other))


def test_the_kept_crop_is_deleted_with_its_entry(bundle: Path, tmp_path: Path) -> None:
    with keeping(bundle, tmp_path) as http:
        first, second = enrol(http, encode(person(1)), encode(person(2)))
        kept, left = image(http, first), image(http, second)
        assert http.delete(f"/v1/galleries/g/entries/{first}").status_code == 204
        assert http.get(f"/v1/galleries/g/entries/{first}/image").json()["code"] == "not-found"
    assert (anywhere(tmp_path, kept), anywhere(tmp_path, left)) == (
        False,
        True,
    )  # the write-ahead log is removed when the service stops
