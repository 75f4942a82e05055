"""Calls of the API, and the expected embeddings."""

import base64
from typing import Any

import httpx
import numpy as np

from bundle import load_crop
from pan_reid import schemas
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding


def expected(*pictures: bytes) -> np.ndarray:
    return reference_embedding(np.stack([load_crop(picture, HEIGHT, WIDTH) for picture in pictures]))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{n}.png", picture)) for n, picture in enumerate(pictures)]


def problem(answer: httpx.Response, status: int, code: str) -> schemas.Problem:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = schemas.Problem.model_validate_json(answer.content)
    assert (found.status, found.code) == (status, code)
    assert found.request_id == answer.headers["x-request-id"]
    assert found.detail
    return found


def enrol(api: httpx.Client, gallery: str, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    return api.post(f"/v1/galleries/{gallery}/entries", json={"entries": list(entries)}, headers=headers)


def ids(answer: httpx.Response) -> list[int]:
    enrolled = schemas.Enrolled.model_validate_json(answer.content)
    return [result.entry_id for result in enrolled.results if result.entry_id is not None]


def send(client: httpx.Client, *pictures: bytes) -> httpx.Response:
    return client.post("/v1/embeddings", files=[("images", ("x", picture)) for picture in pictures])
