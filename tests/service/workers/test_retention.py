"""Retention: expired entries are not found any more, and are erased from every file soon."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from service.api.app import create_app
from service.container import open_service
from service.core.clock import now
from service.core.settings import Settings
from tests.support.bundles import write_bundle

DAY = 86_400_000_000
VECTORS = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)


class Clock:
    """Always the time `days` from now."""

    days = 0.0

    def __call__(self) -> int:
        return now() + round(self.days * DAY)


def crop(number: int, **known: Any) -> dict[str, Any]:
    return {"vector": VECTORS[number].tolist(), "person_id": f"p{number}", **known}


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@asynccontextmanager
async def api(bundle: Path, data: Path, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    async with open_service(Settings(bundle=bundle, data=data), clock) as service:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1") as http:
            yield http


async def found(http: httpx.AsyncClient, **options: Any) -> set[str]:
    """The persons that a search finds. A search grouped by person must agree."""
    asked = {"vector": VECTORS[0].tolist(), "top_k": 1000, **options}
    hits = (await http.post("/galleries/g/search", json=asked)).json()["hits"]
    persons = (await http.post("/galleries/g/search", json={**asked, "group_by": "person"})).json()["persons"]
    assert {hit["person_id"] for hit in hits} == {one["person_id"] for one in persons}
    assert all(one["entries"] == len(one["hits"]) for one in persons)  # expired entries do not affect scores
    return {hit["person_id"] for hit in hits}


def purges(data: Path) -> list[tuple[str, int]]:
    """Caller and count of each purge in the audit log."""
    with sqlite3.connect(data / "pan.sqlite3") as db:
        rows = db.execute("SELECT who, count FROM audit WHERE action = 'purge' ORDER BY id").fetchall()
    db.close()
    return rows


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_an_expired_entry_is_not_found_by_searches_and_erased_at_a_restart(bundle: Path, tmp_path: Path) -> None:
    clock = Clock()

    async def test() -> None:
        async with api(bundle, tmp_path, clock) as http:
            made = await http.post("/galleries", json={"name": "g", "retention_days": 10})
            assert made.json()["retention_days"] == 10
            entries = [crop(0), crop(1, captured_at=ago(9)), crop(2, captured_at=ago(-1000)), crop(3)]
            assert (await http.post("/galleries/g/entries", json={"entries": entries})).status_code == 201
            await http.patch("/galleries/g/entries/4", json={"captured_at": ago(5)})
            everybody = {"p0", "p1", "p2", "p3"}
            for days, there in [(0.9, everybody), (1.1, everybody - {"p1"}), (5.1, {"p0", "p2"}), (10.1, set())]:
                clock.days = days
                assert await found(http) == there
                file = await http.post("/galleries/g/export")
                assert [f'"{name}"' in file.text for name in sorted(everybody)] == [
                    name in there for name in sorted(everybody)
                ]
            clock.days = 5.1
            receipt = (await http.post("/galleries/g/purge")).json()
            assert (receipt["entries"], receipt["overwritten"]) == (2, True)
            clock.days = 0  # the entries are erased by now, not only hidden
            assert await found(http) == {"p0", "p2"}
            assert (await http.get("/galleries/g")).json()["entries"] == 2
            metrics = await http.get("http://127.0.0.1/metrics")
            assert "pan_entries_purged_total 2.0" in metrics.text
            assert 'pan_gallery_entries{gallery="g"} 2.0' in metrics.text
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        wide = VECTORS[:4].astype(np.float64)
        unit = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
        assert [vector.tobytes() in held for vector in unit] == [True, False, True, False]
        clock.days = 11  # the service was stopped meanwhile, and purges at its start
        async with api(bundle, tmp_path, clock) as http:
            while (await http.get("/galleries/g")).json()["entries"]:
                assert await found(http) == set()
        assert purges(tmp_path) == [("127.0.0.1", 2), ("(service)", 2)]

    run(test)


def test_retention_can_be_set_shortened_and_removed_later(bundle: Path, tmp_path: Path) -> None:
    clock = Clock()

    async def test() -> None:
        async with api(bundle, tmp_path, clock) as http:
            await http.post("/galleries", json={"name": "g", "purpose": "a test"})
            entries = [crop(n, captured_at=ago(n)) for n in range(40)]
            await http.post("/galleries/g/entries", json={"entries": entries})
            clock.days = 0.5
            assert len(await found(http)) == 40
            assert (await http.post("/galleries/g/purge")).json()["entries"] == 0
            for days in (30, 0.25, 3.25):
                changed = await http.patch("/galleries/g", json={"retention_days": days})
                assert (changed.json()["retention_days"], changed.json()["purpose"]) == (days, "a test")
                assert await found(http) == {f"p{n}" for n in range(40) if n + 0.5 < days}
            changed = await http.patch("/galleries/g", json={"purpose": "another"})
            assert (changed.json()["retention_days"], changed.json()["purpose"]) == (3.25, "another")
            await http.patch("/galleries/g", json={"retention_days": None})
            assert len(await found(http)) == 40
            await http.patch("/galleries/g", json={"retention_days": 3.25})
            assert (await http.post("/galleries/g/purge")).json()["entries"] == 37
            await http.patch("/galleries/g", json={"retention_days": None})
            assert await found(http) == {"p0", "p1", "p2"}
            for wrong in (0, -1, "P3D", 1e9):
                assert (await http.patch("/galleries/g", json={"retention_days": wrong})).status_code == 422

    run(test)


def test_a_crop_that_has_expired_fails_alone(bundle: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with api(bundle, tmp_path, Clock()) as http:
            await http.post("/galleries", json={"name": "g", "retention_days": 2})
            entries = [crop(0), crop(1, captured_at=ago(3)), crop(2, captured_at=ago(1))]
            answer = await http.post("/galleries/g/entries", json={"entries": entries})
            assert (answer.status_code, answer.json()["enrolled"], answer.json()["failed"]) == (207, 2, 1)
            error = answer.json()["results"][1]["error"]
            assert "captured more than 2 days ago" in error["detail"]
            refused = await http.post("/galleries/g/entries", json={"entries": [crop(1, captured_at=ago(3))]})
            assert (refused.status_code, refused.json()["errors"][0]["at"]) == (422, "captured_at")
            assert len(await found(http)) == 2
            assert (await http.post("/galleries/nowhere/purge")).status_code == 404

    run(test)


def test_entries_of_another_model_expire_as_well(bundle: Path, tmp_path: Path) -> None:
    clock = Clock()

    async def test() -> None:
        async with api(bundle, tmp_path / "data", clock) as http:
            await http.post("/galleries", json={"name": "g", "retention_days": 2})
            for _ in range(10):
                await http.post("/galleries/g/entries", json={"entries": [crop(0)] * 250})
            assert (await http.get("/galleries/g")).json()["entries"] == 2500
        clock.days = 3
        async with api(write_bundle(tmp_path / "other", seed=1), tmp_path / "data", clock) as http:
            while (await http.get("/galleries/g")).json()["entries"]:
                await asyncio.sleep(0.01)
        assert purges(tmp_path / "data") == [("(service)", 1000), ("(service)", 1000), ("(service)", 500)]

    run(test)


def test_idempotency_keys_expire_after_seven_days(bundle: Path, tmp_path: Path) -> None:
    clock = Clock()

    def kept() -> int:
        with sqlite3.connect(tmp_path / "pan.sqlite3") as db:
            count: int = db.execute("SELECT count(*) FROM idempotency").fetchone()[0]
        db.close()
        return count

    async def enrol(http: httpx.AsyncClient) -> int:
        answer = await http.post(
            "/galleries/g/entries", json={"entries": [crop(0)]}, headers={"Idempotency-Key": "monday"}
        )
        return int(answer.json()["results"][0]["entry_id"])

    async def test() -> None:
        async with api(bundle, tmp_path, clock) as http:
            await http.post("/galleries", json={"name": "g"})
            assert [await enrol(http), await enrol(http)] == [1, 1]
            clock.days = 6.9
            assert await enrol(http) == 1
            clock.days = 7.1  # before the next purge
            assert (kept(), await enrol(http)) == (1, 2)
        clock.days = 7.2
        async with api(bundle, tmp_path, clock):  # without a new enrolment
            while kept():
                await asyncio.sleep(0.01)

    run(test)


def test_an_entry_with_a_future_time_expires(bundle: Path, tmp_path: Path) -> None:
    clock = Clock()

    async def test() -> None:
        async with api(bundle, tmp_path, clock) as http:
            await http.post("/galleries", json={"name": "g", "retention_days": 10})
            await http.post("/galleries/g/entries", json={"entries": [crop(0), crop(1, captured_at=ago(-5000))]})
            lines = [json.loads(line) for line in (await http.post("/galleries/g/export")).text.splitlines()]
            for line, created_at in zip(lines[1:3], [ago(-3000), "9999-12-31T23:59:59Z"], strict=True):
                line["created_at"] = created_at
            text = "".join(json.dumps(line) + "\n" for line in lines[:-1])
            end = {"lines": len(lines) - 1, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            made = await http.post(
                "/galleries/copy/import",
                content=text + json.dumps(end) + "\n",
                headers={"Content-Type": "application/octet-stream"},
            )
            assert made.status_code == 201
            shown = (await http.get("/galleries/copy/entries")).json()["entries"]
            assert all(one["created_at"] <= datetime.now(UTC).isoformat() for one in shown)
            for days, left in [(9.9, 2), (10.1, 0)]:
                clock.days = days
                hits = await http.post("/galleries/copy/search", json={"vector": VECTORS[0].tolist()})
                assert len(hits.json()["hits"]) == left
            assert (await http.post("/galleries/copy/purge")).json()["entries"] == 2

    run(test)
