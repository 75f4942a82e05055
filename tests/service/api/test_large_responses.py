"""Large responses are built without delaying other requests."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api import mapping as views
from service.api.app import create_app
from service.container import open_service
from service.core.settings import Settings
from tests.service.galleries.gates import run


@pytest.mark.parametrize("asked", [{}, {"group_by": "person", "examples": 50}])
def test_a_large_response_does_not_delay_other_requests(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    hit_view = views.hit_view

    def held(*args: Any) -> Any:
        inside.set()
        assert go_on.wait(20)
        return hit_view(*args)

    monkeypatch.setattr(views, "hit_view", held)

    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service:
            transport = httpx.ASGITransport(create_app(service))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as http:
                await http.post("/galleries", json={"name": "g"})
                vectors = np.random.default_rng(0).normal(size=(150, service.catalog.dim)).tolist()
                entries = [{"vector": vector, "person_id": f"p{n % 4}"} for n, vector in enumerate(vectors)]
                assert (await http.post("/galleries/g/entries", json={"entries": entries})).status_code == 201
                asking = {"vector": vectors[0], "top_k": 150, **asked}
                answer = asyncio.create_task(http.post("/galleries/g/search", json=asking))
                assert await asyncio.to_thread(inside.wait, 60)
                listed = (await http.get("/galleries")).json()["galleries"]
                assert [(one["entries"], one["persons"]) for one in listed] == [(150, 4)]
                go_on.set()
                found = (await answer).json()
                assert len(found.get("hits") or [hit for one in found["persons"] for hit in one["hits"]]) == 150

    run(play())
