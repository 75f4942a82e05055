"""POST /v1/embeddings: every form of request and response, hostile and unusual images."""

import base64
import io

import httpx
import numpy as np
import pytest

from pan_reid import schemas
from tests.service.api.calls import b64, expected, files, problem
from tests.support.bundles import DIM
from tests.support.pictures import REFUSALS, hostile, png, unusual


def test_multipart_raw_and_json_give_equal_embeddings(api: httpx.Client) -> None:
    truth = expected(png(1), png(2))
    multipart = api.post("/v1/embeddings", files=files(png(1), png(2)))
    json = api.post("/v1/embeddings", json={"images": [b64(png(1)), b64(png(2))]})
    for answer in (multipart, json):
        found = schemas.Embeddings.model_validate_json(answer.content)
        assert answer.status_code == 200
        assert found.dim == DIM
        np.testing.assert_allclose([item.embedding for item in found.embeddings], truth, atol=1e-5)
    raw = api.post("/v1/embeddings", content=png(2), headers={"content-type": "image/png"})
    np.testing.assert_allclose(raw.json()["embeddings"][0]["embedding"], truth[1], atol=1e-5)


def test_embeddings_are_base64_or_npy_on_request(api: httpx.Client) -> None:
    truth = expected(png(1), png(2))
    answer = api.post("/v1/embeddings?encoding=base64", files=files(png(1), png(2)))
    texts = [item["embedding"] for item in answer.json()["embeddings"]]
    np.testing.assert_allclose([np.frombuffer(base64.b64decode(text), "<f4") for text in texts], truth, atol=1e-5)
    answer = api.post("/v1/embeddings", files=files(png(1), png(2)), headers={"accept": "application/octet-stream"})
    assert answer.headers["content-type"] == "application/octet-stream"
    array = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, truth, atol=1e-5)


def test_an_unusable_image_fails_alone_in_json_and_fails_the_request_in_binary(api: httpx.Client) -> None:
    answer = api.post("/v1/embeddings", files=files(png(1), b"nonsense", png(2)))
    assert answer.status_code == 207
    found = schemas.Embeddings.model_validate_json(answer.content).embeddings
    assert found[1].error is not None
    assert found[1].error.code == "unsupported-image"
    np.testing.assert_allclose([found[0].embedding, found[2].embedding], expected(png(1), png(2)), atol=1e-5)
    binary = api.post("/v1/embeddings", files=files(png(1), b"no"), headers={"accept": "application/octet-stream"})
    assert problem(binary, 422, "unusable-images").errors == [
        {"at": "images.1", "code": "unsupported-image", "problem": found[1].error.detail.replace("8 bytes", "2 bytes")}
    ]


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_image_is_refused_and_other_images_are_embedded(api: httpx.Client, name: str) -> None:
    data, status = hostile()[name]
    alone = api.post("/v1/embeddings", content=data, headers={"content-type": "image/jpeg"})
    assert alone.status_code == status, alone.text
    assert alone.json()["code"] in REFUSALS
    among = api.post("/v1/embeddings", files=files(png(1), data, png(2)))
    assert among.status_code == 207
    found = among.json()["embeddings"]
    np.testing.assert_allclose([found[0]["embedding"], found[2]["embedding"]], expected(png(1), png(2)), atol=1e-5)


@pytest.mark.parametrize("name", unusual())
def test_an_unusual_image_is_embedded(api: httpx.Client, name: str) -> None:
    answer = api.post("/v1/embeddings", content=unusual()[name], headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    vector = np.array(answer.json()["embeddings"][0]["embedding"])
    np.testing.assert_allclose(vector @ vector, 1.0, atol=1e-5)
    coloured = {
        "cmyk",
        "webp",
        "bmp",
        "alpha",
        "animated-png",
        "animated-webp",
        "trailing-bytes",
        "palette",
        "jpeg-zip",
    }
    if name in coloured:  # the first frame, in the colours of the plain image
        assert vector @ expected(png(1))[0] > 0.98
