"""A frame with boxes: each box gives the same result as its crop."""

import base64
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from pan_reid import Client, schemas
from tests.support.bundles import DIM, HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import encode, person

BOXES = [[10, 20, 64, 128], [100.4, 5.6, 64, 128], [199.6, 72, 40.2, 80]]
BAD = {
    "left of it": [-1, 0, 64, 128],
    "below it": [0, 80, 64, 128.6],
    "elsewhere": [1000, 1000, 64, 128],
    "thin": [0, 0, 15, 128],
    "turned round": [100, 100, -64, -100],
}


def frame() -> Image.Image:
    picture = Image.new("RGB", (240, 200), (90, 120, 60))
    for n, (x, y, width, height) in enumerate(BOXES):
        picture.paste(person(n + 1, 0, round(height), round(width)), (round(x), round(y)))
    return picture


def truth() -> np.ndarray:
    """The embeddings of the crops, cut and resized by Pillow."""
    crops = []
    for x, y, width, height in BOXES:
        crop = frame().crop((round(x), round(y), round(x + width), round(y + height)))
        crops.append(np.asarray(crop.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)))
    return reference_embedding(np.stack(crops))


def test_boxes_of_a_frame_give_the_embeddings_of_their_crops(api: httpx.Client) -> None:
    png = encode(frame())
    form = api.post("/v1/embeddings", files={"images": ("x", png)}, data={"boxes": json.dumps(BOXES)})
    body = {"images": [base64.b64encode(png).decode()], "boxes": BOXES}
    raw = api.post("/v1/embeddings", params={"boxes": json.dumps(BOXES)}, content=png,
                   headers={"content-type": "image/png"})  # fmt: skip
    for answer in (form, raw, api.post("/v1/embeddings", json=body)):
        found = schemas.Embeddings.model_validate_json(answer.content)
        np.testing.assert_allclose([item.embedding for item in found.embeddings], truth(), atol=1e-5)
    with Client(str(api.base_url)) as client:
        np.testing.assert_allclose(client.embed([png], boxes=BOXES), truth(), atol=1e-5)


def test_boxes_refer_to_the_upright_frame(api: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    png = encode(frame().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    answer = api.post("/v1/embeddings", files={"images": ("x", png)}, data={"boxes": json.dumps(BOXES)})
    found = [item["embedding"] for item in answer.json()["embeddings"]]
    np.testing.assert_allclose(found, truth(), atol=1e-5)


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_box_fails_alone(api: httpx.Client, name: str) -> None:
    boxes = [BOXES[0], BAD[name], BOXES[1]]
    answer = api.post("/v1/embeddings", files={"images": ("x", encode(frame()))}, data={"boxes": json.dumps(boxes)})
    assert answer.status_code == 207
    first, bad, last = answer.json()["embeddings"]
    assert bad["error"]["code"] == ("image-too-small" if name in {"thin", "turned round"} else "box-outside")
    np.testing.assert_allclose([first["embedding"], last["embedding"]], truth()[:2], atol=1e-5)


def test_boxes_are_searched_and_enrolled(api: httpx.Client, gallery: str) -> None:
    png, path = encode(frame()), f"/v1/galleries/{gallery}"
    metadata = [{"person_id": f"p{n}"} for n in range(4)]
    form = {"boxes": json.dumps([*BOXES, BAD["below it"]]), "metadata": json.dumps(metadata)}
    enrolled = api.post(f"{path}/entries", files={"images": ("x", png)}, data=form)
    assert enrolled.status_code == 207
    answer = schemas.Enrolled.model_validate_json(enrolled.content)
    assert [result.error.code if result.error else None for result in answer.results] == [None] * 3 + ["box-outside"]
    for n, box in enumerate(BOXES):
        found = api.post(f"{path}/search", files={"images": ("x", png)}, data={"boxes": json.dumps([box])}).json()
        assert found["hits"][0]["person_id"] == f"p{n}"
        assert found["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    bad = api.post(f"{path}/search", files={"images": ("x", png)}, data={"boxes": json.dumps([BOXES[0], BAD["thin"]])})
    assert [error["at"] for error in bad.json()["errors"]] == ["boxes.1"]


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([], "at least one"),
        ({}, "at least one"),
        ([[1, 2, 3]], "four numbers"),
        ([[1, 2, 3, "4"]], "four numbers"),
        ([[1, 2, 3, True]], "four numbers"),
        ([1, 2, 3, 4], "four numbers"),
        ([[1e308, 0, 1e308, 64]], "four numbers"),
        ("[[1, 2]]", "a list"),
    ],
)
def test_malformed_boxes_are_refused(api: httpx.Client, boxes: object, says: str) -> None:
    body = {"images": [base64.b64encode(encode(frame())).decode()], "boxes": boxes}
    answer = api.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert says in answer.json()["detail"]


def test_boxes_in_json_must_be_a_list(api: httpx.Client, gallery: str) -> None:
    torn = api.post("/v1/embeddings", files={"images": ("x", encode(frame()))}, data={"boxes": "[[1, 2"})
    assert (torn.status_code, "not JSON" in torn.json()["detail"]) == (422, True)
    body = {"images": [base64.b64encode(encode(frame())).decode()]}
    for path in ("/v1/embeddings", f"/v1/galleries/{gallery}/search"):
        answer = api.post(path, json={**body, "boxes": json.dumps(BOXES)})
        assert (answer.status_code, "`boxes` is a list" in answer.json()["detail"]) == (422, True)
        assert api.post(path, json=body, params={"boxes": json.dumps(BOXES)}).status_code == 200


def test_boxes_need_exactly_one_readable_frame(api: httpx.Client, gallery: str) -> None:
    files = [("images", ("x", encode(frame())))] * 2
    two = api.post("/v1/embeddings", files=files, data={"boxes": json.dumps(BOXES)})
    assert (two.status_code, "one frame" in two.json()["detail"]) == (422, True)
    broken = api.post("/v1/embeddings", files={"images": ("x", b"none")}, data={"boxes": json.dumps(BOXES)})
    assert (broken.status_code, broken.json()["code"]) == (415, "unsupported-image")
    many = api.post("/v1/embeddings", files={"images": ("x", encode(frame()))}, data={"boxes": str([BOXES[0]] * 257)})
    assert (many.status_code, many.json()["code"]) == (413, "too-large")
    vector = api.post(f"/v1/galleries/{gallery}/search", json={"vector": [1.0] * DIM, "boxes": BOXES})
    assert vector.status_code == 422
