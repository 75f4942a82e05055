"""Everyday work for half an hour: does the server's memory stay what it was after warming up?

    python -m benchmarks.soak [--minutes 30] [--bundle BUNDLE] [--json]

Four clients enrol people, find them again, send broken pictures among good ones, list and delete entries, and erase
the people of some time ago, so that the gallery keeps its size. The first fifth of the time warms up; then the median
memory of the second fifth is compared with that of the last. Exit status 1 where it grew by 2 % or more, or an answer
was wrong.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import httpx
import typer

from benchmarks.served import MIB, Served, watch
from tests.service.bundles import write_bundle
from tests.service.pictures import hostile, png

CLIENTS = 4
REMEMBERED = 20  # people of a client who are in the gallery at a time
PAUSE = 0.05  # seconds between the rounds of a client: work, not overload
MOST = 2.0  # per cent
GALLERY = "/v1/galleries/soak"


class Visitor:
    """A client that goes round after round, and notes each answer that is not the right one."""

    def __init__(self, number: int, http: httpx.AsyncClient) -> None:
        self._number = number
        self._http = http
        self._bad = [data for data, _ in hostile().values()]
        self.rounds = 0
        self.faults: Counter[str] = Counter()

    async def work(self, end: float) -> None:
        """Until the clock says so."""
        while time.monotonic() < end:
            await self._round()
            self.rounds += 1
            await asyncio.sleep(PAUSE)

    async def _round(self) -> None:
        person = self._person(self.rounds)
        crops = [png(1000 * self.rounds + self._number, shot) for shot in range(4)]
        metadata = json.dumps([{"person_id": person, "camera_id": f"c{shot}"} for shot in range(len(crops))])
        enrolled = await self._ask(201, "POST", "/entries", files=_files(crops), data={"metadata": metadata})
        found = await self._ask(200, "POST", "/search", files=_files(crops[:1]), data={"top_k": "5"})
        if found["hits"][0]["person_id"] != person:
            self.faults["another person was found"] += 1
        bad = self._bad[self.rounds % len(self._bad)]
        await self._ask(207, "POST", "/v1/embeddings", files=_files([crops[1], bad, crops[2]]))
        await self._ask(200, "GET", "/entries", params={"person_id": person})
        await self._ask(204, "DELETE", f"/entries/{enrolled['results'][0]['entry_id']}")
        if self.rounds >= REMEMBERED:
            await self._ask(200, "DELETE", f"/persons/{self._person(self.rounds - REMEMBERED)}")

    def _person(self, number: int) -> str:
        return f"client{self._number}-{number}"

    async def _ask(self, expected: int, method: str, path: str, **body: Any) -> Any:
        answer = await self._http.request(method, path if path.startswith("/v1") else GALLERY + path, **body)
        if answer.status_code != expected:
            self.faults[f"{method} was answered {answer.status_code}"] += 1
        return answer.json() if answer.content else None


def _files(pictures: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("crop", picture)) for picture in pictures]


async def play(folder: Path, bundle: Path, seconds: float) -> dict[str, Any]:
    """Work that long. What was seen."""
    server = Served(bundle, folder / "data", folder / "log", "--log-level", "warning")
    samples: list[int] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        await http.post("/v1/galleries", json={"name": "soak"})
        watching = asyncio.create_task(watch(server, samples, seconds / 500))
        visitors = [Visitor(number, http) for number in range(CLIENTS)]
        end = time.monotonic() + seconds
        await asyncio.gather(*(visitor.work(end) for visitor in visitors))
        watching.cancel()
        entries = (await http.get(GALLERY)).json()["entries"]
    server.stop()
    fifths = [samples[len(samples) * n // 5 : len(samples) * (n + 1) // 5] for n in range(5)]
    medians = [statistics.median(fifth) for fifth in fifths]
    return {
        "seconds": seconds,
        "rounds": sum(visitor.rounds for visitor in visitors),
        "entries at the end": entries,
        "faults": dict(sum((visitor.faults for visitor in visitors), Counter[str]())),
        "MiB by fifths of the time": [round(median / MIB, 1) for median in medians],
        "growth in per cent": round(100 * (medians[-1] / medians[1] - 1), 2),
    }


def main(
    minutes: Annotated[float, typer.Option(min=0.1)] = 30.0,
    bundle: Annotated[Path | None, typer.Option(help="In place of a tiny one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Work, and watch the memory."""
    with TemporaryDirectory() as folder:
        found = asyncio.run(play(Path(folder), bundle or write_bundle(Path(folder) / "bundle"), 60 * minutes))
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(bool(found["faults"]) or found["growth in per cent"] >= MOST)


if __name__ == "__main__":
    typer.run(main)
