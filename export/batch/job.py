"""Makes one bundle of the plan: exports the missing engines and emits a row for each engine when it is finished."""

import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bundle import EngineFile, PanError, load_bundle, save_manifest
from export.batch.plan import COMPILED, EXPLAIN, Job
from export.batch.state import Row, engine_label
from export.bundles.attach import attach_engine
from export.bundles.exporter import Exported, export_checkpoint
from export.bundles.targets import FLOAT32
from export.bundles.writer import new_bundle
from export.tensorrt.build import BuildSettings
from export.tensorrt.export import export_tensorrt

Emit = Callable[[str | Row], None]  # the text of the next step, or the row of a finished engine


def make(job: Job, keys: Mapping[str, str], held: Sequence[Row], outdated: Sequence[Row], emit: Emit) -> None:
    """Make every engine of the job that has no row in `held`; engines in `outdated` are removed from the bundle first.

    An engine that fails is emitted as a row and does not stop the others.
    """
    missing = [label for label in job.labels if label not in {row.engine for row in held}]
    targets = [target for target in job.targets if target.label in missing]
    # each export fits the projection again, and the explain graph is made together with float32
    whole = FLOAT32.label in missing or EXPLAIN in missing or bool(targets and job.reduction)
    try:
        if whole:
            missing = job.labels
            exported = export_checkpoint(
                job.checkpoint,
                job.folder,
                targets=job.targets,
                measuring=job.measuring,
                reduction=job.reduction,
                explain=job.explain,
                overwrite=True,
                step=emit,
            )
            _emit_exported(job, keys, missing, exported, emit)
        else:
            _remove_entries(job.folder, outdated)
            if targets:
                _add(job, keys, missing, emit)
    except Exception as error:
        for row in failures(job, missing if whole else [target.label for target in targets], keys, error):
            emit(row)
        if whole:
            return
    for label in job.compiled:
        if label in missing:
            _compile(job, label, keys, emit)


def copy_bundle(source: Path, job: Job) -> None:
    """Copy the engines that the job needs, except TensorRT ones, from another bundle of the same checkpoint."""
    manifest = load_bundle(source).manifest
    files = tuple(entry for entry in manifest.files if entry.built_for is None and engine_label(entry) in job.labels)
    with new_bundle(job.folder, overwrite=True) as draft:
        for name in {entry.name for entry in files}:
            shutil.copyfile(source / name, draft / name)
        save_manifest(draft, manifest.model_copy(update={"files": files}))


def failures(job: Job, labels: Sequence[str], keys: Mapping[str, str], error: Exception) -> list[Row]:
    """The rows of engines that could not be made; an unexpected error is printed with its traceback as well."""
    reason = str(error)
    if not isinstance(error, PanError):
        traceback.print_exception(error)
        reason = f"{type(error).__name__}: {error}"
    return [
        Row(bundle=job.name, engine=label, verdict="failed", reason=reason, key=keys.get(label)) for label in labels
    ]


def _add(job: Job, keys: Mapping[str, str], missing: Sequence[str], emit: Emit) -> None:
    """Export the missing engines to a temporary bundle, then attach them to the existing one."""
    targets = [target for target in job.targets if target.label in missing]
    with TemporaryDirectory(prefix=f".{job.name}.", dir=job.folder.parent) as scratch:
        made = Path(scratch) / "bundle"
        exported = export_checkpoint(job.checkpoint, made, targets=targets, measuring=job.measuring, step=emit)
        fingerprint = exported.manifest.model.fingerprint
        for entry in exported.manifest.files:
            if engine_label(entry) in missing:
                draft = Path(scratch) / entry.name
                shutil.copyfile(made / entry.name, draft)  # two entries may share one file
                attach_engine(job.folder, draft, entry, fingerprint, overwrite=True)
        _emit_exported(job, keys, [target.label for target in targets], exported, emit)


def _compile(job: Job, label: str, keys: Mapping[str, str], emit: Emit) -> None:
    library, precision = COMPILED[label]
    target = job.compute_capability if library == "tensorrt_rtx" else None
    settings = BuildSettings(batch=job.batch, compute_capability=target)
    start = time.monotonic()
    try:
        built = export_tensorrt(
            job.folder,
            precision,
            settings,
            library=library,
            measuring=job.measuring,
            overwrite=True,
            step=lambda text: emit(f"{label}: {text}"),
        )
    except Exception as error:
        emit(*failures(job, [label], keys, error))
        return
    emit(_row(job, built.entry, keys[label], time.monotonic() - start, reason=built.unverified))


def _emit_exported(job: Job, keys: Mapping[str, str], labels: Sequence[str], exported: Exported, emit: Emit) -> None:
    entries = {engine_label(entry): entry for entry in exported.manifest.files}
    for label in labels:
        seconds, milliseconds = exported.seconds.get(label), exported.milliseconds.get(label)
        if label in entries:
            emit(_row(job, entries[label], keys[label], seconds, milliseconds))
        elif reason := exported.refused.get(label):
            row = Row(bundle=job.name, engine=label, verdict="failed", reason=reason, key=keys[label], seconds=seconds)
            emit(row)


def _row(
    job: Job,
    entry: EngineFile,
    key: str,
    seconds: float | None,
    milliseconds: float | None = None,
    reason: str | None = None,
) -> Row:
    return Row(
        bundle=job.name,
        engine=engine_label(entry),
        verdict="pass" if entry.parity else "unverified",
        reason=reason,
        key=key,
        file=entry.name,
        bytes=entry.bytes,
        sha256=entry.sha256,
        batch=entry.batch,
        seconds=seconds,
        milliseconds=milliseconds,
        parity=entry.parity,
    )


def _remove_entries(folder: Path, rows: Sequence[Row]) -> None:
    """Remove engines that were made for another plan. The float32 engine stays, so the bundle is never empty."""
    goes = {(row.engine, row.sha256) for row in rows}
    manifest = load_bundle(folder).manifest
    stays = tuple(entry for entry in manifest.files if (engine_label(entry), entry.sha256) not in goes)
    if len(stays) == len(manifest.files):
        return
    save_manifest(folder, manifest.model_copy(update={"files": stays}))
    for name in {entry.name for entry in manifest.files} - {entry.name for entry in stays}:
        (folder / name).unlink()
        (folder / f"{name}.json").unlink(missing_ok=True)  # the sidecar of a TensorRT engine
