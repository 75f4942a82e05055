"""Background workers continue after failures, and report them in readiness and metrics."""

import asyncio
from pathlib import Path

import pytest

from service.container import open_service
from service.core.settings import Settings
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.galleries.commands import CreateGallery
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage import entries as records


def test_a_worker_continues_after_failures_and_counts_them() -> None:
    metrics, seen, done = Metrics(), [], asyncio.Event()

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"worker": "example"})

    async def work() -> bool:
        seen.append((worker.health.failing, value("pan_worker_failures_total"), value("pan_worker_failing")))
        if len(seen) == 1:
            raise KeyError("a gallery that is gone")
        if len(seen) == 4:
            done.set()
        return len(seen) > 2

    worker = Worker("example", work, 0.0, metrics)

    async def play() -> None:
        async with worker.running():
            await asyncio.wait_for(done.wait(), 60)

    asyncio.run(play())
    assert seen[:4] == [(False, 0, 0), (True, 1, 1), (True, 2, 1), (False, 2, 0)]


@pytest.mark.parametrize("broken", ["all", "expired"])
def test_the_workers_of_a_service_continue_and_readiness_lists_failing_ones(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    for module in ("retention", "index_maintenance"):
        monkeypatch.setattr(f"service.workers.{module}._INTERVAL", 0.01)
    all_galleries, delete_expired = GalleryCatalog.all, records.delete_expired
    fails = True

    def all_but(self: GalleryCatalog) -> list[LoadedGallery]:
        if fails and broken == "all":
            raise KeyError("a gallery that is gone")
        return all_galleries(self)

    def expired(*args: object) -> list[int]:
        if fails and broken == "expired":
            raise ValueError("an unexpected error")
        return delete_expired(*args)  # type: ignore[arg-type]

    async def play() -> None:
        nonlocal fails
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service:
            await service.use_cases.galleries.create(CreateGallery("me", "g", index_kind="flat", retention=1))
            monkeypatch.setattr(GalleryCatalog, "all", all_but)
            monkeypatch.setattr(records, "delete_expired", expired)
            named = {"all": {"retention", "index upkeep"}, "expired": {"retention"}}[broken]
            while not named <= set((await service.use_cases.status.readiness()).failing):
                await asyncio.sleep(0.01)
            fails = False
            while named & set((await service.use_cases.status.readiness()).failing):
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(play(), 120))
