"""Servers for tests: one in this process for a module, or `pan-serve run` in processes of their own."""

import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.common.served import Served
from pan_reid.schemas import IndexKind
from service.core.settings import Settings
from tests.support.bundles import write_bundle
from tests.support.galleries import IndexRig, OpenRig
from tests.support.servers import running


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


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


@pytest.fixture
def open_rig(tmp_path: Path) -> Iterator[OpenRig]:
    """Opens the data folder of the test. Each call closes the rig before it, like a restart of the service."""
    opened: list[IndexRig] = []

    def open_(kind: IndexKind, dim: int = 32) -> IndexRig:
        for earlier in opened[-1:]:
            earlier.database.close()
        opened.append(IndexRig(tmp_path, kind, dim))
        return opened[-1]

    yield open_
    for last in opened[-1:]:
        last.database.close()
