"""Runs the jobs of a plan in order: finished engines are kept, failures do not stop the rest, rows are saved at once.

Bundles are made one at a time: a measurement uses all cores, and timings are only valid without other load.
"""

import glob
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bundle import PanError
from export.batch.plan import COMPILED, Job
from export.batch.state import Action, ResultRow, Rows, engine_keys, job_actions, load_state, save_state
from export.batch.subprocess_runner import error_text, run_in_process
from export.batch.worker import compile_engine, export_engines
from export.bundles.attach import detach_engines
from export.bundles.targets import EXPLAIN, FLOAT32, TARGETS
from export.bundles.writer import copy_bundle
from export.errors import PlanError, TargetError
from export.files import lock_folder
from training.callbacks import StepCallback

Call = Callable[..., list[ResultRow]]  # call(function, job, labels, step=..., timeout=...)


def plan_actions(out: Path, jobs: Sequence[Job]) -> list[tuple[Job, str, str]]:
    """For each engine the job, the label and what a run would do. Writes nothing."""
    rows = load_state(out)

    def actions(job: Job) -> Mapping[str, Action | str]:
        try:
            _check_owned(job, rows)
            return job_actions(job, engine_keys(job), rows.get(job.name, {}))
        except PanError as error:
            return dict.fromkeys(job.labels, f"fails: {error}")

    return [(job, label, action) for job in jobs for label, action in actions(job).items()]


def run_batch(
    out: Path, jobs: Sequence[Job], step: StepCallback = lambda _: None, call: Call = run_in_process
) -> Iterator[list[ResultRow]]:
    """Make the missing engines; yields the rows of each bundle when it is finished. `call` runs a worker function.

    Raises PlanError if the folder is in use.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with lock_folder(out, wait=False):
            batch = _Batch(out, step, call)
            for job in jobs:
                try:
                    yield batch.run(job)
                except Exception as error:  # the rows that an earlier run saved stay valid
                    yield _failed(job, job.labels, error)
    except BlockingIOError:
        raise PlanError(f"another batch is writing to {out}; wait until it ends, or choose another out") from None


class _Batch:
    def __init__(self, out: Path, step: StepCallback, call: Call) -> None:
        self.out, self.rows, self.step, self.call = out, load_state(out), step, call
        self.made: dict[str, Job] = {}  # by the key of float32: a later bundle with the same key starts as a copy

    def run(self, job: Job) -> list[ResultRow]:
        """Make the missing engines of a bundle, and return the rows of all. Raises PanError before it makes any."""
        keys = engine_keys(job)
        _check_owned(job, self.rows)
        rows = self.rows.setdefault(job.name, {})
        save_state(self.out, self.rows)  # the bundle belongs to this batch before its folder exists
        actions = job_actions(job, keys, rows)
        done = {label: rows[label].model_copy(update={"kept": True}) for label in actions if actions[label] == "kept"}
        twin = self.made.setdefault(keys[FLOAT32.label], job)
        if twin is not job and FLOAT32.label not in done:
            done |= self._copy(twin, job, keys)
        todo = [label for label in job.labels if label not in done]
        # the explain graph is made together with float32, and each export fits the projection again
        if not {FLOAT32.label, EXPLAIN}.isdisjoint(todo) or (job.reduction and not TARGETS.keys().isdisjoint(todo)):
            todo = list(job.labels)
        elif outdated := [row.entry for label, row in rows.items() if label in todo and row.entry]:
            detach_engines(job.folder, outdated)
        for made in self._make(job, todo):
            done[made.engine] = rows[made.engine] = made.model_copy(update={"key": keys[made.engine]})
            save_state(self.out, self.rows)
        return [done[label] for label in job.labels]

    def _make(self, job: Job, labels: Sequence[str]) -> Iterator[ResultRow]:
        """Run a process for the ONNX files, then one for each TensorRT engine."""
        compiled = [label for label in labels if label in COMPILED]
        if exported := [label for label in labels if label not in COMPILED]:
            rows = self._call(export_engines, job, exported)
            yield from rows
            if rows[0].engine == FLOAT32.label and rows[0].entry is None:  # there is no bundle to add engines to
                yield from (rows[0].model_copy(update={"engine": label}) for label in compiled)
                return
        for label in compiled:
            yield from self._call(compile_engine, job, [label])

    def _call(self, function: Call, job: Job, labels: Sequence[str]) -> list[ResultRow]:
        step: StepCallback = lambda text: self.step(f"{job.name}: {text}")  # noqa: E731
        try:
            return self.call(function, job, labels, step=step, timeout=job.timeout)
        except Exception as error:
            return _failed(job, labels, error)
        finally:
            _remove_drafts(job)

    def _copy(self, twin: Job, job: Job, keys: Mapping[str, str]) -> dict[str, ResultRow]:
        """Start a bundle with the ONNX files of another one; engines that failed there are not tried again."""
        same = {label: row for label, row in self.rows[twin.name].items() if row.key == keys.get(label)}
        if FLOAT32.label not in same or same[FLOAT32.label].entry is None:
            return {}
        change = {"bundle": job.name, "seconds": None}
        copies = {label: row.model_copy(update=change) for label, row in same.items() if label not in COMPILED}
        copy_bundle(twin.folder, job.folder, [row.entry for row in copies.values() if row.entry])
        self.rows[job.name].update(copies)
        save_state(self.out, self.rows)
        return copies


def _failed(job: Job, labels: Sequence[str], error: Exception) -> list[ResultRow]:
    reason = error_text(error)
    return [ResultRow(bundle=job.name, engine=label, reason=reason) for label in labels]


def _check_owned(job: Job, rows: Rows) -> None:
    """Raise TargetError if the bundle's folder exists and this batch did not make it."""
    if job.folder.exists() and job.name not in rows:
        raise TargetError(
            f"{job.folder} exists and does not belong to this batch; move it away, or give the model another name"
        )


def _remove_drafts(job: Job) -> None:
    """Remove what a killed process left behind."""
    for path in job.folder.parent.glob(f".{glob.escape(job.name)}.*"):
        if path.suffix != ".old" or job.folder.exists():  # else it is the bundle that was being replaced
            shutil.rmtree(path, ignore_errors=True)
    for path in job.folder.glob(".*.draft"):
        path.unlink()
