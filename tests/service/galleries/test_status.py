"""Readiness, and readers without free file descriptors."""

import asyncio
import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.container import open_service
from service.core.errors import NotReady, StorageFailed
from service.core.settings import Settings
from service.observability.metrics import Metrics
from service.storage.connection import read_probe
from service.storage.database import Database
from tests.service.galleries.gates import run


@contextmanager
def read_held(database: Database) -> Iterator[None]:
    """Keep one reader thread busy, so that another read needs another thread."""
    inside, go_on = threading.Event(), threading.Event()

    def held(db: sqlite3.Connection) -> None:
        inside.set()
        assert go_on.wait(60)
        read_probe(db)

    reading = database.submit_read(held)
    assert inside.wait(60)
    try:
        yield
    finally:
        go_on.set()
    reading.result()


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let the process open no file while the context is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_reader_that_cannot_open_its_file_fails_one_read_only(tmp_path: Path) -> None:
    database = Database(tmp_path / "pan.sqlite3", Metrics())
    try:
        with read_held(database):
            with no_more_files(), pytest.raises(StorageFailed):
                database.submit_read(read_probe).result()
            database.submit_read(read_probe).result()
    finally:
        database.close()


def test_readiness_fails_if_the_database_cannot_be_opened(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service:
            monkeypatch.setattr(service.database, "_local", threading.local())  # no thread has a connection
            with no_more_files(), pytest.raises(NotReady, match="cannot be used"):
                await service.use_cases.status.readiness()
            assert (await service.use_cases.status.readiness()).failing == ()

    run(play())


def test_concurrent_readiness_checks_time_out(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.galleries.status._PROBE_TIMEOUT", 0.05)

    async def play() -> None:
        async with open_service(Settings(bundle=bundle, data=tmp_path)) as service, service.use_cases.status._probing:
            with pytest.raises(NotReady, match="did not answer"):
                await asyncio.wait_for(service.use_cases.status.readiness(), 30)

    run(play())
