"""Trains several runs, each in a process of its own, one at a time on each device."""

import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from training.config import RunConfig, save_config
from training.trainer import CONFIG, STATE
from training.trainer.interruption import Stopped, StopRequest

POLL_S = 0.5  # between looks at a request to stop


@dataclass(frozen=True, slots=True)
class Job:
    """A run to train, or to continue if its folder holds a state."""

    folder: Path
    config: RunConfig

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name


@dataclass(slots=True, eq=False)
class _Process:
    job: Job
    device: str | None
    popen: subprocess.Popen[str]
    error: str = ""  # the message of the run, if it failed


_Events = queue.Queue[tuple[_Process, str | None]]


def train(jobs: Sequence[Job], devices: Sequence[str | None], console: Console) -> Iterator[tuple[Job, str]]:
    """Train all jobs, at most one on each device at a time; yields each ended job with its error, "" if there is none.

    `devices`: values of the setting `device`; None leaves it as the configuration of the job has it. Messages of the
    runs are printed behind their names. Raises Stopped after SIGINT or SIGTERM, when all processes have
    saved their state.
    """
    waiting, free, running = deque(jobs), deque(devices), list[_Process]()
    events: _Events = queue.Queue()
    with StopRequest() as stop:
        try:
            while running or (waiting and not stop.requested):
                while waiting and free and not stop.requested:
                    running.append(_start(waiting.popleft(), free.popleft(), events, console))
                if stop.requested:
                    _terminate(running)
                try:
                    process, line = events.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if line is not None:
                    console.print(f"{process.job.name}: {line}", markup=False, highlight=False, soft_wrap=True)
                    if line.startswith("error"):
                        process.error = line.partition(": ")[2]
                    continue
                running.remove(process)
                free.append(process.device)
                if not stop.requested:
                    yield process.job, process.error or _unexplained(process.popen.returncode)
        finally:
            _terminate(running)
    if stop.requested:
        raise Stopped("stopped; the same command continues the table")


def _start(job: Job, device: str | None, events: _Events, console: Console) -> _Process:
    config = job.config if device is None else job.config.model_copy(update={"device": device})
    job.folder.mkdir(parents=True, exist_ok=True)
    save_config(config, job.folder / CONFIG)
    command = [sys.executable, "-m", "training.cli"]
    if (job.folder / STATE).exists():
        command += ["resume", str(job.folder)]
    else:
        command += ["run", "--config", str(job.folder / CONFIG), "--out", str(job.folder)]
    console.print(f"{job.name}: training" + (f" on {device}" if device else ""), highlight=False)
    popen = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
    )
    process = _Process(job, device, popen)
    threading.Thread(target=_follow, args=(process, events), daemon=True).start()
    return process


def _follow(process: _Process, events: _Events) -> None:
    """Pass on the messages of a process, and None at its end."""
    assert process.popen.stderr is not None
    with process.popen.stderr as lines:
        for line in lines:
            events.put((process, line.rstrip()))
    process.popen.wait()
    events.put((process, None))


def _terminate(running: Sequence[_Process]) -> None:
    """Ask each process once to save its state and end."""
    for process in running:
        if process.popen.poll() is None and not process.error:
            process.error = "stopped"
            process.popen.send_signal(signal.SIGTERM)


def _unexplained(returncode: int) -> str:
    return f"the process ended with status {returncode} and no message" if returncode else ""
