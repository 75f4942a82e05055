"""A server in a thread of this process, and commands in subprocesses."""

import asyncio
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpx

from service.api.server import Server, serve
from service.core.settings import Settings

CLI = (sys.executable, "-m", "service")


@contextmanager
def running(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server that runs in a thread of this process."""
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


def all_entries(api: httpx.Client) -> dict[str, set[tuple[int, str | None, str | None]]]:
    """Entry id, person and camera of all entries, by gallery."""
    names = [one["name"] for one in api.get("/v1/galleries").json()["galleries"]]
    lists = {name: api.get(f"/v1/galleries/{name}/entries?limit=1000").json()["entries"] for name in names}
    return {
        name: {(entry["entry_id"], entry["person_id"], entry["camera_id"]) for entry in entries}
        for name, entries in lists.items()
    }


def pan_reid(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `pan-reid` in a subprocess."""
    return _run([sys.executable, "-m", "pan_reid"], arguments, {})


def pan_serve(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `pan-serve` in a subprocess, with additional variables in its environment."""
    return _run(CLI, arguments, environment or {})


def _run(
    command: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env=variables)
