"""A real server for the tests: in a thread of this process, or as `pan-serve run` in a process of its own."""

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.served import Served
from service.api.server import Server, serve
from service.core.settings import Settings
from tests.service.bundles import write_bundle

CLI = (sys.executable, "-m", "service")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@contextmanager
def running(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server in this process."""
    found: queue.Queue[tuple[Server, str] | None] = queue.Queue()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(serve(settings, "127.0.0.1", 0, lambda server, url: found.put((server, url))))
        except BaseException as error:
            failure.append(error)
            found.put(None)

    thread = threading.Thread(target=run)
    thread.start()
    started = found.get(timeout=60)
    if started is None:
        raise failure[0]
    server, url = started
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def api(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One server for a module; each test makes its own gallery."""
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"))) as client:
        yield client


@pytest.fixture
def gallery(api: httpx.Client, request: pytest.FixtureRequest) -> str:
    """The name of a new, empty gallery."""
    name = f"g{zlib.crc32(request.node.name.encode()):08x}"
    assert api.post("/v1/galleries", json={"name": name}).status_code == 201
    return name


@pytest.fixture
def launch(bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers over one data folder; those still running are killed at the end."""
    processes: list[Served] = []

    def start(*options: str, **where: Any) -> Served:
        process = Served(where.get("bundle", bundle), tmp_path / "data", tmp_path / "log", *options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.running:
            process.stop(signal.SIGKILL)


def pan_reid(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the client's CLI to its end."""
    return _run([sys.executable, "-m", "pan_reid"], arguments)


def pan_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the CLI to its end."""
    return _run(CLI, arguments)


def _run(command: Sequence[str], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env=environment)
