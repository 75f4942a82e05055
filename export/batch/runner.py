"""Runs the jobs of a plan in order: finished engines are kept, failures do not stop the rest, rows are saved at once.

Bundles are made one at a time: a measurement uses all cores, and timings are only valid without other load.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bundle import PanError
from export.batch.job import copy_bundle, failures, make
from export.batch.plan import Job
from export.batch.state import Row, State, engine_keys, finished, load_state, save_state
from export.batch.subprocess_runner import run_in_process
from export.bundles.targets import FLOAT32
from export.errors import ExportError, PlanError, TargetError
from training.callbacks import StepCallback

Action = Literal["kept", "failed before", "inputs changed", "file lost", "to make"]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A row of the summary; `kept` means that an earlier run made the engine."""

    row: Row
    kept: bool = False


def plan_actions(out: Path, jobs: Sequence[Job]) -> list[tuple[Job, str, str]]:
    """For each engine the job, the label and what a run would do. Writes nothing."""
    state = load_state(out)
    return [(job, label, action) for job in jobs for label, action in _actions(job, state).items()]


def run_batch(
    out: Path, jobs: Sequence[Job], step: StepCallback = lambda _: None, call: Callable[..., None] = run_in_process
) -> Iterator[list[ResultRow]]:
    """Make the missing engines; yields the rows of each bundle when it is finished.

    `call(function, *arguments, emit=...)` runs one job. Raises PlanError if the folder is in use.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _exclusive_lock(out):
        record = _Recorder(out)
        made: dict[
            str, Job
        ] = {}  # bundles of this run by the key of float32: a bundle with the same key starts as a copy
        for job in jobs:
            try:
                keys = engine_keys(job)
                record.begin(job)
                held = finished(job, keys, record.passed(job))
                twin = made.setdefault(keys[FLOAT32.label], job)
                alike = twin is not job and FLOAT32.label not in held
                copied = record.copied(twin, job, keys) if alike else {}
                yield record.make(job, keys, held, copied, step, call)
            except Exception as error:  # the rows that an earlier run saved stay valid
                yield [ResultRow(row) for row in failures(job, job.labels, {}, error)]


class _Recorder:
    """The state on disk, written after each row."""

    def __init__(self, out: Path) -> None:
        self.out, self.state = out, load_state(out)

    def passed(self, job: Job) -> list[Row]:
        return [row for row in self.state.bundles.get(job.name, ()) if row.verdict != "failed"]

    def begin(self, job: Job) -> None:
        """Save that this batch owns the bundle, before its folder exists. Raises TargetError."""
        _check_owned(job, self.state)
        if job.name not in self.state.bundles:
            self._save(job.name, [])

    def put(self, row: Row) -> Row:
        others = [other for other in self.state.bundles.get(row.bundle, ()) if other.engine != row.engine]
        self._save(row.bundle, [*others, row])
        return row

    def copied(self, twin: Job, job: Job, keys: Mapping[str, str]) -> dict[str, Row]:
        """Start a bundle as a copy of another one of this run; engines that failed there are not tried again."""
        rows = [row for row in self.state.bundles[twin.name] if keys.get(row.engine) == row.key]
        if FLOAT32.label not in {row.engine for row in rows if row.verdict == "pass"}:
            return {}
        copy_bundle(twin.folder, job)
        return {row.engine: self.put(row.model_copy(update={"bundle": job.name, "seconds": None})) for row in rows}

    def make(
        self,
        job: Job,
        keys: Mapping[str, str],
        held: Mapping[str, Row],
        copied: Mapping[str, Row],
        step: StepCallback,
        call: Callable[..., None],
    ) -> list[ResultRow]:
        """The rows of a job: kept from an earlier run, copied from another bundle, or made now by `call`."""
        finished_rows = dict(copied)

        def on_message(message: str | Row) -> None:
            if isinstance(message, str):
                step(f"{job.name}: {message}")
            else:
                finished_rows[message.engine] = self.put(message)

        there = [*held.values(), *copied.values()]
        if len(there) < len(job.labels):
            known = {row.engine for row in there}
            outdated = [row for row in self.passed(job) if row.engine in job.labels and row.engine not in known]
            try:
                call(make, job, keys, there, outdated, emit=on_message)
            except ExportError as error:  # the process crashed
                lost = [label for label in job.labels if label not in finished_rows and label not in held]
                for row in failures(job, lost, keys, error):
                    on_message(row)
        return [
            ResultRow(finished_rows[label]) if label in finished_rows else ResultRow(held[label], kept=True)
            for label in job.labels
        ]

    def _save(self, bundle: str, rows: Sequence[Row]) -> None:
        self.state = self.state.with_rows(bundle, rows)
        save_state(self.out, self.state)


def _actions(job: Job, state: State) -> dict[str, str]:
    rows = {row.engine: row for row in state.bundles.get(job.name, ())}
    try:
        keys = engine_keys(job)
        _check_owned(job, state)
    except PanError as error:
        return dict.fromkeys(job.labels, f"fails: {error}")
    held = finished(job, keys, list(rows.values()))

    def action(label: str) -> Action:
        if label in held:
            return "kept"
        if label not in rows:
            return "to make"
        if rows[label].key != keys[label]:
            return "inputs changed"
        return "failed before" if rows[label].verdict == "failed" else "file lost"

    return {label: action(label) for label in job.labels}


def _check_owned(job: Job, state: State) -> None:
    """Raise TargetError if the bundle's folder exists and this batch did not make it."""
    if job.folder.exists() and job.name not in state.bundles:
        raise TargetError(
            f"{job.folder} exists and does not belong to this batch; move it away, or give the model another name"
        )


@contextmanager
def _exclusive_lock(out: Path) -> Iterator[None]:
    directory = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlanError(f"another batch is writing to {out}; wait until it ends, or choose another out") from None
        yield
    finally:
        os.close(directory)
