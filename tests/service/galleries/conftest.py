"""A server with the gallery `town`."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.core.settings import Settings
from tests.service.galleries.town import CROPS, seen
from tests.support.pictures import png
from tests.support.servers import running


@pytest.fixture(scope="module")
def town(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"), max_top_k=100)) as client:
        client.post("/v1/galleries", json={"name": "town"})
        entries = [
            {"image": base64.b64encode(png(*picture)).decode(), "person_id": person, "camera_id": camera, **seen(n)}
            for n, (picture, person, camera) in enumerate(CROPS)
        ]
        answer = client.post("/v1/galleries/town/entries", json={"entries": entries})
        assert [result["entry_id"] for result in answer.json()["results"]] == list(range(1, len(CROPS) + 1))
        yield client
