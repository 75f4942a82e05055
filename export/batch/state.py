"""The state of a batch on disk, from which a later run resumes.

The key of an engine is a hash of all its inputs. An engine is finished if the state has its key and the bundle still
has the same file.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from bundle import BatchProfile, BundleError, EngineFile, Parity, load_bundle, sha256_file
from bundle.manifest import Sha256, StrictModel
from export.batch.plan import COMPILED, EXPLAIN, Job
from export.bundles.targets import FLOAT32
from export.errors import ExportError, PlanError
from training.data import read_data
from training.errors import DataError

STATE = "state.json"

Verdict = Literal["pass", "unverified", "failed"]


class Row(StrictModel):
    """The result of one engine of one bundle."""

    bundle: str
    engine: str
    verdict: Verdict
    reason: str | None = None
    key: Sha256 | None = None
    file: str | None = None
    bytes: int | None = None
    sha256: Sha256 | None = None
    batch: BatchProfile | None = None
    seconds: float | None = None  # to make and measure
    milliseconds: float | None = None  # a crop
    parity: Parity | None = None


class State(StrictModel):
    """All rows, by the bundle's name. A name without rows is a bundle that was started."""

    schema_version: Literal[1] = 1
    bundles: dict[str, tuple[Row, ...]] = Field(default_factory=dict)

    def with_rows(self, bundle: str, rows: Sequence[Row]) -> "State":
        """A copy with the rows of one bundle replaced."""
        return self.model_copy(update={"bundles": {**self.bundles, bundle: tuple(rows)}})


def load_state(out: Path) -> State:
    """Read the state of a folder; empty if there is none. Raises PlanError if it cannot be read."""
    path = out / STATE
    try:
        return State.model_validate_json(path.read_bytes()) if path.exists() else State()
    except ValidationError as error:
        raise PlanError(
            f"{path} was written by another version ({error.error_count()} fields differ); choose another out, or "
            "delete it together with its bundles"
        ) from None


def save_state(out: Path, state: State) -> None:
    """Write the state atomically."""
    draft = out / f".{STATE}.draft"
    draft.write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
    draft.replace(out / STATE)


def engine_label(entry: EngineFile) -> str:
    """The label of a manifest entry, such as `onnx:float16`."""
    return EXPLAIN if entry.purpose == "explain" else f"{entry.kind}:{entry.precision}"


def engine_keys(job: Job) -> dict[str, str]:
    """The key of each engine by label: a SHA-256 over all its inputs. That of float32 covers the whole bundle's inputs.

    Raises ExportError or DataError if the checkpoint or the data set does not exist.
    """
    measuring, gates = job.measuring, job.measuring.gates
    bundle = _digest(
        version("pan-reid"),
        sha256_file(_weights(job.checkpoint)),
        _identity(measuring.data) if measuring.data else None,
        asdict(job.reduction) if job.reduction else None,
        job.explain,
        (measuring.images, measuring.ranked, measuring.calibration),
        asdict(gates["float32"]),
    )
    keys = {FLOAT32.label: bundle, EXPLAIN: bundle}
    keys |= {target.label: _digest(bundle, target.label, asdict(gates[target.precision])) for target in job.targets}
    keys |= {
        label: _digest(bundle, label, asdict(gates[COMPILED[label][1]]), job.batch.model_dump(), job.compute_capability)
        for label in job.compiled
    }
    return {label: keys[label] for label in job.labels}


def finished(job: Job, keys: Mapping[str, str], rows: Sequence[Row]) -> dict[str, Row]:
    """The rows whose engines are in the bundle, undamaged, and have the key that the plan asks for."""
    try:
        entries = load_bundle(job.folder).manifest.files
    except BundleError:
        return {}
    held = {(engine_label(entry), entry.sha256) for entry in entries}
    return {row.engine: row for row in rows if (row.engine, row.sha256) in held and keys.get(row.engine) == row.key}


def _weights(checkpoint: Path) -> Path:
    path = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
    if not path.is_file():
        raise ExportError(f"there is no checkpoint at {path}; `pan-train run` writes RUN/model.safetensors")
    return path


def _identity(data: Path) -> list[tuple[str, int, int, int]]:
    """Names, sizes and labels of all crops. Hashing all files at every run would take too long."""
    split = read_data(data)
    try:
        return [
            (os.path.relpath(crop.path, data), crop.path.stat().st_size, crop.person, crop.camera)
            for crop in (*split.train, *split.query, *split.gallery)
        ]
    except OSError as error:
        raise DataError(f"{data} is incomplete: {error}; `pan-train data check` lists the problems") from None


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
