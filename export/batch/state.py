"""The state of a batch on disk, from which a later run resumes.

The key of an engine is a hash of all its inputs. An engine is finished if its row has that key and the bundle still has
the same file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from bundle import BundleError, EngineFile, load_bundle, sha256_file
from bundle.manifest import Sha256, StrictModel
from export.batch.plan import COMPILED, Job
from export.bundles.targets import EXPLAIN, TARGETS
from export.errors import ExportError, PlanError
from export.files import write_atomically
from training.data import read_data
from training.errors import DataError

Action = Literal["kept", "failed before", "inputs changed", "file lost", "to make"]


class ResultRow(StrictModel):
    """The result of one engine of one bundle. One that failed has no entry in the bundle's manifest."""

    bundle: str
    engine: str
    entry: EngineFile | None = None
    reason: str | None = None  # why it failed or is unverified
    seconds: float | None = None  # to make and measure
    milliseconds: float | None = None  # per crop
    key: Sha256 | None = None
    kept: bool = Field(default=False, exclude=True)  # made by an earlier run

    @property
    def verdict(self) -> Literal["pass", "unverified", "failed"]:
        """An engine without parity is a TensorRT engine that could not run here."""
        return "failed" if self.entry is None else "pass" if self.entry.parity else "unverified"


Rows = dict[str, dict[str, ResultRow]]  # by bundle and engine; a bundle without rows was started
_ROWS = TypeAdapter(Rows)


def load_state(out: Path) -> Rows:
    """Read the rows of a folder; none if there is no state. Raises PlanError if it cannot be read."""
    path = out / "state.json"
    try:
        return _ROWS.validate_json(path.read_bytes()) if path.exists() else {}
    except ValidationError:
        raise PlanError(
            f"{path} was written by another version; choose another out, or delete it together with its bundles"
        ) from None


def save_state(out: Path, rows: Rows) -> None:
    """Write the rows atomically."""
    write_atomically(out / "state.json", _ROWS.dump_json(rows, indent=1).decode() + "\n")


def job_actions(job: Job, keys: Mapping[str, str], rows: Mapping[str, ResultRow]) -> dict[str, Action]:
    """What a run does with each engine. "kept": the bundle has it, undamaged, made from the same inputs."""
    try:
        held = load_bundle(job.folder).manifest.files
    except BundleError:
        held = ()

    def action(label: str) -> Action:
        row = rows.get(label)
        if row is None:
            return "to make"
        if row.key != keys[label]:
            return "inputs changed"
        if row.entry is None:
            return "failed before"
        return "kept" if row.entry in held else "file lost"

    return {label: action(label) for label in job.labels}


def engine_keys(job: Job) -> dict[str, str]:
    """The key of each engine by label: a SHA-256 over all its inputs.

    Raises ExportError or DataError if the checkpoint or the data set does not exist.
    """
    measuring = job.measuring
    sizes = measuring.images, measuring.ranked, measuring.calibration
    data = measuring.data and _data_identity(measuring.data)
    inputs = [version("pan-reid"), _weights_sha256(job.checkpoint), data, sizes, job.reduction, EXPLAIN in job.labels]

    def key(label: str) -> str:
        precision = COMPILED[label][1] if label in COMPILED else TARGETS[label].precision if label in TARGETS else None
        gates = [measuring.gates["float32"], precision and measuring.gates[precision]]
        build = (job.batch, job.compute_capability) if label in COMPILED else None
        return hashlib.sha256(json.dumps([*inputs, label, gates, build], default=repr).encode()).hexdigest()

    return {label: key(label) for label in job.labels}


def _weights_sha256(checkpoint: Path) -> str:
    path = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
    if not path.is_file():
        raise ExportError(f"there is no checkpoint at {path}; `pan-train run` writes RUN/model.safetensors")
    return sha256_file(path)


def _data_identity(data: Path) -> list[tuple[str, int, int, int]]:
    """Names, sizes and labels of all crops. Hashing all files at every run would take too long."""
    split = read_data(data)
    try:
        return [
            (os.path.relpath(crop.path, data), crop.path.stat().st_size, crop.person, crop.camera)
            for crop in (*split.train, *split.query, *split.gallery)
        ]
    except OSError as error:
        raise DataError(f"{data} is incomplete: {error}; `pan-train data check` lists the problems") from None
