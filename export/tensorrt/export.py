"""Adds a TensorRT engine to a bundle: typed ONNX, build, comparison on the GPU if there is one, attach."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bundle import BatchProfile, Bundle, EngineFile, Precision, load_bundle
from export.bundles.attach import Slot, attach_engine, check_free_slot
from export.bundles.targets import SYNTHETIC, MeasurementSettings
from export.engines import onnx_embedder
from export.errors import TargetError
from export.parity.agreement import BATCH_SIZES, Agreement, Reference, check_gates
from export.parity.samples import load_samples
from export.tensorrt import timing_cache
from export.tensorrt.build import BuildSettings, build
from export.tensorrt.engine_file import Sidecar, built_for, engine_name, write_sidecar
from export.tensorrt.graph import TypedGraph, typed_graph
from export.tensorrt.library import LibraryName, find_library
from export.tensorrt.network import parse
from export.tensorrt.runtime import cannot_run_reason, engine_embedder, find_gpu, split_and_pad
from training.callbacks import StepCallback

LARGEST_COMPARED = 64  # larger batches only need more memory


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """The built engine and its measurements."""

    entry: EngineFile
    sidecar: Sidecar
    library: str
    graph: TypedGraph
    agreement: Agreement | None  # of the engine on this machine's GPU
    unverified: str | None  # why it was not measured


def export_tensorrt(
    folder: Path,
    precision: Precision,
    settings: BuildSettings,
    *,
    library: LibraryName | None = None,
    measuring: MeasurementSettings = SYNTHETIC,
    overwrite: bool = False,
    step: StepCallback = lambda _: None,
) -> BuiltEngine:
    """Add a TensorRT engine to a bundle. The typed graph must pass the gates in ONNX Runtime first, without a GPU.

    If the engine can run here, it must pass them too; otherwise it is added without parity, as unverified.
    Raises ExportError, BundleError or DataError; the bundle is then unchanged.
    """
    trt = find_library(library)
    settings.validate(trt)
    bundle = load_bundle(folder)
    gpu = find_gpu()
    target = built_for(trt, settings, gpu)
    check_free_slot(bundle.manifest, Slot(trt.name, precision, built_for=target), overwrite)
    spec, gates = bundle.manifest.input, measuring.gates[precision]

    step("the bundle's float32 file on the crops")
    reference = _reference(bundle, settings.batch, measuring)
    step(f"making and measuring the typed {precision} graph")
    graph = typed_graph(bundle, precision, reference, measuring, trt.name, step)
    serialised = graph.model.SerializeToString(deterministic=True)
    parsed = parse(trt, serialised, spec, bundle.manifest.output.dim)

    start = time.monotonic()
    engine = build(trt, parsed, spec, settings, timing_cache.cache_path(folder), step)
    seconds = time.monotonic() - start

    unverified = cannot_run_reason(trt, gpu, settings.compute_capability)
    agreement = None
    if unverified is None:
        step("comparing the engine with the bundle's float32 file")
        embed = engine_embedder(trt, engine, settings.version_compatible)
        agreement = reference.compare(split_and_pad(embed, settings.batch))
        check_gates(agreement, gates)

    entry = EngineFile(
        name=engine_name(trt, precision, target),
        kind=trt.name,
        precision=precision,
        batch=settings.batch,
        bytes=len(engine),
        sha256=hashlib.sha256(engine).hexdigest(),
        parity=agreement.parity(gates) if agreement else None,
        built_for=target,
    )
    fingerprint = bundle.manifest.model.fingerprint
    with _draft(folder / entry.name, engine) as draft:
        attach_engine(folder, draft, entry, fingerprint, overwrite)
    sidecar = Sidecar(
        engine=entry,
        fingerprint=fingerprint,
        graph_sha256=hashlib.sha256(serialised).hexdigest(),
        workspace=settings.workspace,
        build_seconds=round(seconds, 3),
    )
    write_sidecar(folder / f"{entry.name}.json", sidecar)
    return BuiltEngine(entry, sidecar, trt.title, graph, agreement, unverified)


def _reference(bundle: Bundle, batch: BatchProfile, measuring: MeasurementSettings) -> Reference:
    """The bundle's float32 file, which was compared with PyTorch, at batch sizes that the engine takes."""
    samples = load_samples(measuring.data, bundle.manifest.input, measuring.images, measuring.ranked)
    largest = min(batch.max or LARGEST_COMPARED, LARGEST_COMPARED)
    sizes = {size for size in (*BATCH_SIZES, batch.min, batch.opt, largest) if size and batch.min <= size <= largest}
    embed = onnx_embedder(bundle.file("onnx", "float32")[1], torch.get_num_threads())
    return Reference(embed, samples, sorted(sizes) or [batch.min])


@contextmanager
def _draft(target: Path, content: bytes) -> Iterator[Path]:
    """The content in a hidden file beside `target`, removed at the end unless it was moved."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    try:
        try:
            draft.write_bytes(content)
        except OSError as error:
            raise TargetError(f"the engine cannot be written to {target.parent} ({error.strerror})") from error
        yield draft
    finally:
        draft.unlink(missing_ok=True)
