"""Checkpoint -> ONNX -> other precisions -> comparison with PyTorch -> bundle.

All other engines are made from the float32 ONNX file: if it fails its gates, nothing is written. An engine of another
precision that fails is left out of the bundle and reported.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bundle import InputSpec, Manifest, ModelInfo, OutputSpec, fingerprint, save_manifest
from export.bundles.attach import attach_engine
from export.bundles.builder import BundleBuilder
from export.bundles.projection import Reduction, SizeAccuracy, reduce_network
from export.bundles.targets import FLOAT32, SYNTHETIC, MeasurementSettings, Target, entry_label
from export.bundles.writer import check_free, new_bundle
from export.onnx.graph import OPSET, onnx_graph
from export.parity.agreement import Agreement, Reference
from export.parity.latency import ms_per_crop
from export.parity.samples import load_samples
from training.callbacks import StepCallback
from training.checkpoint import Card, load_checkpoint, weights_of
from training.embed import torch_embedder
from training.evaluation import calibrate
from training.model import PAN

TIMED_BATCH, TIMED_ROUNDS = 8, 3


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The bundle that an export wrote, and its measurements."""

    out: Path
    manifest: Manifest
    agreement: dict[str, Agreement]  # by label of the target
    milliseconds: dict[str, float]  # per crop, by engine, at batch `TIMED_BATCH`
    seconds: dict[str, float]  # by label, also of refused engines: time to make the file and to measure the engine
    refused: dict[str, str] = field(default_factory=dict)  # label -> why it is not in the bundle
    float_blocks: str | None = None  # blocks of the INT8 graph that stayed in float, if any
    sizes: list[SizeAccuracy] = field(default_factory=list)  # accuracy by descriptor size, if a reduction was requested
    no_thresholds_reason: str = ""  # why the bundle has no thresholds although the checkpoint has them


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    targets: Sequence[Target] = (),
    measuring: MeasurementSettings = SYNTHETIC,
    reduction: Reduction | None = None,
    explain: bool = False,
    opset: int = OPSET,
    overwrite: bool = False,
    step: StepCallback = lambda _: None,
) -> ExportResult:
    """Write the bundle of a checkpoint: float32 ONNX, and those `targets` that pass their gates.

    `reduction` projects the descriptors to fewer dimensions; `explain` adds the explain graph. `step` is called with
    the text of each step. Raises ExportError, CheckpointError or DataError; `out` is then unchanged.
    """
    check_free(out.resolve(), overwrite)  # checked first, because the rest takes minutes
    network, card = load_checkpoint(checkpoint)
    spec = card.input
    step("reading crops" if measuring.data else "rendering synthetic people")
    samples = load_samples(measuring.data, spec, measuring.images, measuring.ranked)
    sizes = reduce_network(network, spec, reduction, measuring.data, samples, step) if reduction else []
    info = model_info(network, card)
    embed = torch_embedder(network, spec)
    step("PyTorch on the crops")
    reference = Reference(embed, samples)
    if reduction:  # the figures in the checkpoint are those of the full descriptors
        calibration = None if samples.no_thresholds_reason else calibrate(reference.embedded)
        measured = {"evaluation": reference.evaluation, "calibration": calibration}
        card = card.model_copy(update=measured)
    with new_bundle(out, overwrite) as folder:
        step("tracing the network")
        start = time.monotonic()
        graph = onnx_graph(network, spec, {"fingerprint": info.fingerprint, "variant": info.variant}, opset)
        builder = BundleBuilder(folder, graph, spec, reference, measuring, step)
        builder.add(FLOAT32)
        builder.seconds[FLOAT32.label] = time.monotonic() - start
        if explain:
            builder.add_explain_graph(network, opset)
        for target in dict.fromkeys(targets):
            if target != FLOAT32:
                builder.try_to_add(target)
        manifest = Manifest(
            model=info,
            input=spec,
            output=OutputSpec(dim=info.embedding_size),
            files=tuple(builder.entries),
            evaluation=card.evaluation,
            calibration=card.calibration,
            provenance=card.provenance,
        )
        builder.remove_unnamed_files()
        save_manifest(folder, manifest)
        step("timing")
        engines = {"PyTorch": embed, **builder.engines}
        milliseconds = ms_per_crop(engines, samples.images_NHW3[:TIMED_BATCH], TIMED_ROUNDS)
    return ExportResult(
        out,
        manifest,
        builder.agreement,
        milliseconds,
        builder.seconds,
        refused=builder.refused,
        float_blocks=builder.float_blocks,
        sizes=sizes,
        no_thresholds_reason=samples.no_thresholds_reason if reduction else "",
    )


def add_engines(
    checkpoint: Path,
    folder: Path,
    targets: Sequence[Target],
    *,
    measuring: MeasurementSettings = SYNTHETIC,
    step: StepCallback = lambda _: None,
) -> ExportResult:
    """Add those `targets` that pass their gates to a bundle of the checkpoint; other files are not written.

    Raises ExportError, BundleError, CheckpointError or DataError.
    """
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / "bundle"
        exported = export_checkpoint(checkpoint, made, targets=targets, measuring=measuring, step=step)
        for entry in exported.manifest.files:
            if entry_label(entry) != FLOAT32.label:
                draft = Path(scratch) / entry.name
                shutil.copyfile(made / entry.name, draft)  # two entries may share one file
                attach_engine(folder, draft, entry, exported.manifest.model.fingerprint, overwrite=True)
    return exported


def model_info(network: PAN, card: Card) -> ModelInfo:
    """The manifest's description of a network."""
    return ModelInfo(
        variant=card.variant,
        backbone=network.config.backbone.name,
        parts=network.config.parts,
        reduced_from=network.projection.in_features if network.projection else None,
        embedding_size=network.embedding_size,
        parameters=network.parameter_count(),
        fingerprint=model_fingerprint(network, card.input),
    )


def model_fingerprint(network: PAN, spec: InputSpec) -> str:
    """Identifies the embedding space: a hash of the weights and the preprocessing."""
    return fingerprint({name: tensor.numpy() for name, tensor in weights_of(network).items()}, spec)
