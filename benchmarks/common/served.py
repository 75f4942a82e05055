"""`pan-serve run` in a subprocess."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

MIB = 2**20


class Served:
    """A server with a bundle and a data folder on a free loopback port. Its log is appended to a file."""

    def __init__(self, bundle: Path, data: Path, log: Path, *options: str) -> None:
        """Start the service and wait until it is ready. Raises RuntimeError with the log if it does not start."""
        self._log = log.open("a+")
        arguments = ["--bundle", str(bundle), "--data", str(data), "--port", "0", *options]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service", "run", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.url = next((word for word in line.split() if word.startswith("http://")), "")
        if not self.url:
            self.wait()
            raise RuntimeError(f"the service did not start:\n{log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait. Returns the exit status."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process. Returns the exit status."""
        status = self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
        return status

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def resident(self) -> int:
        """Resident memory of the process in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


async def watch(server: Served, samples: list[int], every: float) -> None:
    """Append the resident memory of the server to `samples` every `every` seconds, until cancelled."""
    while True:
        samples.append(server.resident())
        await asyncio.sleep(every)
