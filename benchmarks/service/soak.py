"""Soak test: half an hour of ordinary requests. The memory of the server must not grow after the warm-up.

    python -m benchmarks.service.soak [--minutes 30] [--bundle BUNDLE] [--json]

Four clients enrol people in a gallery with stored images, search for them, send invalid images too, list and
delete entries, and erase earlier people, so that the size of the gallery is constant. A fifth client enrols and deletes
vectors in a larger gallery, so that its index is compacted repeatedly. The first fifth of the time is the warm-up; the
median memory of the second fifth is compared with that of the last. The exit status is 1 if it grew by 2 % or more, or
if a response was wrong.
"""

import asyncio
import base64
import json
import re
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from benchmarks.common.served import MIB, Served, watch
from tests.support.bundles import DIM, write_bundle
from tests.support.pictures import hostile, png

CLIENTS = 4
PEOPLE_PER_CLIENT = 20  # people of a client in the gallery
PAUSE = 0.05  # seconds between the rounds of a client
MAX_GROWTH = 2.0  # per cent
GALLERY = "/v1/galleries/soak"
LARGE = "/v1/galleries/large"
PERSONS, CROPS_PER_PERSON = 120, 25  # in the large gallery


class Client(ABC):
    """A client that runs rounds of requests, and records wrong responses."""

    pause = PAUSE

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.rounds = 0
        self.faults: Counter[str] = Counter()

    async def work(self, end: float) -> None:
        """Run rounds until the end time."""
        while time.monotonic() < end:
            await self._round()
            self.rounds += 1
            await asyncio.sleep(self.pause)

    @abstractmethod
    async def _round(self) -> None: ...

    async def _ask(self, expected: int, method: str, path: str, **body: Any) -> Any:
        answer = await self._http.request(method, path, **body)
        if answer.status_code != expected:
            self.faults[f"{method} was answered {answer.status_code}"] += 1
        return answer.json() if answer.content else None


class Visitor(Client):
    """A client with images."""

    def __init__(self, number: int, http: httpx.AsyncClient) -> None:
        super().__init__(http)
        self._number = number
        self._bad = [data for data, _ in hostile().values()]

    async def _round(self) -> None:
        person = self._person(self.rounds)
        crops = [png(1000 * self.rounds + self._number, shot) for shot in range(4)]
        metadata = json.dumps([{"person_id": person, "camera_id": f"c{shot}"} for shot in range(len(crops))])
        enrolled = await self._ask(201, "POST", f"{GALLERY}/entries", files=_files(crops), data={"metadata": metadata})
        found = await self._ask(200, "POST", f"{GALLERY}/search", files=_files(crops[:1]), data={"top_k": "5"})
        if found["hits"][0]["person_id"] != person:
            self.faults["another person was found"] += 1
        bad = self._bad[self.rounds % len(self._bad)]
        await self._ask(207, "POST", "/v1/embeddings", files=_files([crops[1], bad, crops[2]]))
        await self._ask(200, "GET", f"{GALLERY}/entries", params={"person_id": person})
        await self._ask(204, "DELETE", f"{GALLERY}/entries/{enrolled['results'][0]['entry_id']}")
        if self.rounds >= PEOPLE_PER_CLIENT:
            oldest = self._person(self.rounds - PEOPLE_PER_CLIENT)
            await self._ask(200, "DELETE", f"{GALLERY}/persons?person_id={oldest}")

    def _person(self, number: int) -> str:
        return f"client{self._number}-{number}"


class Turnover(Client):
    """A client with vectors: enrols and erases the same number of persons."""

    pause = 0.5

    async def _round(self) -> None:
        persons = range(PERSONS) if self.rounds == 0 else [PERSONS + self.rounds]
        for person in persons:
            vectors = np.random.default_rng(person).normal(size=(CROPS_PER_PERSON, DIM)).astype("<f4")
            metadata = {"person_id": str(person)}
            entries = [{**metadata, "vector": base64.b64encode(vector.tobytes()).decode()} for vector in vectors]
            await self._ask(201, "POST", f"{LARGE}/entries", json={"entries": entries})
        found = await self._ask(200, "POST", f"{LARGE}/search", json={"vector": vectors[0].tolist(), "top_k": 10})
        if found["hits"][0]["person_id"] != str(person):
            self.faults["another person was found"] += 1
        if self.rounds > 0:
            oldest = self.rounds - 1 if self.rounds <= PERSONS else self.rounds
            await self._ask(200, "DELETE", f"{LARGE}/persons?person_id={oldest}")


def _files(pictures: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("crop", picture)) for picture in pictures]


async def play(folder: Path, bundle: Path, seconds: float) -> dict[str, Any]:
    """Run the clients. Returns the measurements."""
    server = Served(bundle, folder / "data", folder / "log", "--log-level", "warning")
    samples: list[int] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        await http.post("/v1/galleries", json={"name": "soak", "keep_crops": True})
        await http.post("/v1/galleries", json={"name": "large", "index": "ivf_sq8"})
        watching = asyncio.create_task(watch(server, samples, seconds / 500))
        clients = [*(Visitor(number, http) for number in range(CLIENTS)), Turnover(http)]
        end = time.monotonic() + seconds
        await asyncio.gather(*(client.work(end) for client in clients))
        watching.cancel()
        entries, large = [(await http.get(gallery)).json()["entries"] for gallery in (GALLERY, LARGE)]
        indexed = (await http.get("/metrics")).text
    server.stop()
    fifths = [samples[len(samples) * n // 5 : len(samples) * (n + 1) // 5] for n in range(5)]
    medians = [statistics.median(fifth) for fifth in fifths]
    return {
        "seconds": seconds,
        "rounds": sum(client.rounds for client in clients),
        "entries at the end": entries,
        "entries of the large gallery": large,
        "its index was": {
            match[1]: int(float(match[2]))
            for match in re.finditer(r'upkeep_seconds_count{done="(.*?)"} (\S+)', indexed)
        },
        "faults": dict(sum((client.faults for client in clients), Counter[str]())),
        "MiB by fifths of the time": [round(median / MIB, 1) for median in medians],
        "growth in per cent": round(100 * (medians[-1] / medians[1] - 1), 2),
    }


def main(
    minutes: Annotated[float, typer.Option(min=0.1)] = 30.0,
    bundle: Annotated[Path | None, typer.Option(help="Bundle; default: a tiny one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the clients, and watch the memory of the server."""
    with TemporaryDirectory() as folder:
        found = asyncio.run(play(Path(folder), bundle or write_bundle(Path(folder) / "bundle"), 60 * minutes))
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(bool(found["faults"]) or found["growth in per cent"] >= MAX_GROWTH)


if __name__ == "__main__":
    typer.run(main)
