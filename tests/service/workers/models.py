"""A gallery of one model, and a bundle with another model."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from pan_reid import Client, Crop
from pan_reid.schemas import EntryInfo
from service.api.app import create_app
from service.container import Container, open_service
from service.core.settings import Settings
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import png

OTHER_DIM = 32


PEOPLE = 30


def fill(client: Client, count: int = PEOPLE) -> None:
    client.create_gallery("g", keep_crops=True)
    crops = [Crop(png(n), EntryInfo(person_id=f"p{n}")) for n in range(count)]
    for start in range(0, count, 200):
        assert client.enrol("g", crops[start : start + 200]).failed == 0


def by_the_other(kept: Sequence[bytes]) -> np.ndarray:
    """The embeddings by the definition of the other model, of images as Pillow reads them."""
    size = (WIDTH, HEIGHT)
    crops = [np.asarray(Image.open(BytesIO(one)).resize(size, Image.Resampling.BILINEAR)) for one in kept]
    return reference_embedding(np.stack(crops), seed=1, dim=OTHER_DIM)


def stored(data: Path, dim: int) -> dict[int, np.ndarray]:
    """The stored vectors by entry."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        rows = db.execute("SELECT entry_id, vector FROM vectors").fetchall()
    db.close()
    return {entry: np.frombuffer(vector, "<f4").reshape(dim) for entry, vector in rows}


def settled(data: Path) -> None:
    """Wait until every vector is in the table `vectors`."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        while db.execute("SELECT count(*) FROM reembedded").fetchone()[0]:
            time.sleep(0.01)
    db.close()


def until_done(client: Client) -> Any:
    while (found := client.re_embedding("g")).state == "running":
        time.sleep(0.02)
    return found


@asynccontextmanager
async def opened(bundle: Path, data: Path) -> AsyncIterator[tuple[Container, httpx.AsyncClient]]:
    async with open_service(Settings(bundle=bundle, data=data)) as service:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1") as http:
            yield service, http


class Paused:
    """Embeds the first batches at once, and the others after an event."""

    def __init__(self, service: Container, batches: int) -> None:
        self._embed = service.embedder.embed_background
        self._left = batches
        self.go_on = asyncio.Event()
        self.waiting = asyncio.Event()
        service.embedder.embed_background = self._paused  # type: ignore[method-assign]

    async def _paused(self, images: Sequence[bytes]) -> Any:
        self._left -= 1
        if self._left < 0:
            self.waiting.set()
            await self.go_on.wait()
        return await self._embed(images)


async def finished(http: httpx.AsyncClient) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = (await http.get("/galleries/g/re-embed")).json()
        if found["state"] != "running":
            return found
        await asyncio.sleep(0.01)


async def search(http: httpx.AsyncClient, **asked: Any) -> list[str]:
    answer = await http.post("/galleries/g/search", json={"top_k": 1, **asked})
    assert answer.status_code == 200, answer.text
    return [hit["person_id"] for hit in answer.json()["hits"]]
