"""What a worker process does: export the ONNX and OpenVINO engines of a bundle, or compile one TensorRT engine."""

import time
from collections.abc import Sequence

from export.batch.plan import COMPILED, Job
from export.batch.state import ResultRow
from export.bundles.exporter import add_engines, export_checkpoint
from export.bundles.targets import EXPLAIN, FLOAT32, entry_label
from export.tensorrt.build import BuildSettings
from export.tensorrt.export import export_tensorrt
from training.callbacks import StepCallback


def export_engines(job: Job, labels: Sequence[str], step: StepCallback) -> list[ResultRow]:
    """Export the engines in `labels`. With float32 the whole bundle is replaced, else they are added to the bundle.

    Raises ExportError, CheckpointError, BundleError or DataError.
    """
    targets = [target for target in job.targets if target.label in labels]
    if FLOAT32.label in labels:
        exported = export_checkpoint(
            job.checkpoint,
            job.folder,
            targets=targets,
            measuring=job.measuring,
            reduction=job.reduction,
            explain=EXPLAIN in labels,
            overwrite=True,
            step=step,
        )
    else:
        exported = add_engines(job.checkpoint, job.folder, targets, measuring=job.measuring, step=step)
    entries = {entry_label(entry): entry for entry in exported.manifest.files}
    return [
        ResultRow(
            bundle=job.name,
            engine=label,
            entry=entries.get(label),
            reason=exported.refused.get(label),
            seconds=exported.seconds.get(label),
            milliseconds=exported.milliseconds.get(label),
        )
        for label in labels
    ]


def compile_engine(job: Job, labels: Sequence[str], step: StepCallback) -> list[ResultRow]:
    """Compile the one TensorRT engine in `labels` and add it to the bundle.

    Raises ExportError, BundleError or DataError; the bundle is then unchanged.
    """
    (label,) = labels
    library, precision = COMPILED[label]
    target = job.compute_capability if library == "tensorrt_rtx" else None
    start = time.monotonic()
    built = export_tensorrt(
        job.folder,
        precision,
        BuildSettings(batch=job.batch, compute_capability=target),
        library=library,
        measuring=job.measuring,
        overwrite=True,
        step=lambda text: step(f"{label}: {text}"),
    )
    seconds = time.monotonic() - start
    return [ResultRow(bundle=job.name, engine=label, entry=built.entry, reason=built.unverified, seconds=seconds)]
