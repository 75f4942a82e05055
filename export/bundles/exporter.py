"""Checkpoint -> ONNX -> other precisions -> each measured against PyTorch -> bundle.

float32 ONNX is what everything else is made from: where it fails its gates, nothing is written. Another precision that
fails is left out of the bundle, and the caller is told.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle import InputSpec, Manifest, ModelInfo, OutputSpec, fingerprint, save_manifest
from export.bundles.builder import BundleBuilder
from export.bundles.projection import Reduction, SizeAccuracy, reduce_network
from export.bundles.targets import FLOAT32, SYNTHETIC, MeasurementSettings, Target
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
class Exported:
    """What an export wrote and saw."""

    out: Path
    manifest: Manifest
    agreement: dict[str, Agreement]  # by label of the target
    milliseconds: dict[str, float]  # a crop, by engine, at batch `TIMED_BATCH`
    seconds: dict[str, float]  # by label, of those left out too: making the file (once) and measuring the engine
    refused: dict[str, str] = field(default_factory=dict)  # label -> why it is not in the bundle
    float_blocks: str | None = None  # of the INT8 graph, where some had to stay in float
    sizes: list[SizeAccuracy] = field(default_factory=list)  # what smaller descriptors cost, where one was asked for
    no_thresholds: str = ""  # why the bundle states none, where its training did


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
) -> Exported:
    """Write the bundle of a checkpoint: float32 ONNX, and of `targets` whatever passes its gates.

    With `reduction` its descriptors are projected to fewer numbers; with `explain` it has the graph of maps as well.

    `step` is told what is being done. Raises ExportError, CheckpointError or DataError; then `out` is as it was.
    """
    check_free(out.resolve(), overwrite)  # before the minutes that the rest takes
    network, card = load_checkpoint(checkpoint)
    spec = card.input
    step("reading crops" if measuring.data else "rendering synthetic people")
    samples = load_samples(measuring.data, spec, measuring.images, measuring.ranked)
    sizes = reduce_network(network, spec, reduction, measuring.data, samples, step) if reduction else []
    info = model_info(network, card)
    embed = torch_embedder(network, spec)
    step("PyTorch on the crops")
    reference = Reference(embed, samples)
    if reduction:  # what training measured was measured on other descriptors
        calibration = None if samples.few_strangers else calibrate(reference.embedded)
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
    return Exported(
        out,
        manifest,
        builder.agreement,
        milliseconds,
        builder.seconds,
        refused=builder.refused,
        float_blocks=builder.float_blocks,
        sizes=sizes,
        no_thresholds=samples.few_strangers if reduction else "",
    )


def model_info(network: PAN, card: Card) -> ModelInfo:
    """What the manifest says about a network."""
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
    """The identity of the embedding space of a network and its preprocessing."""
    return fingerprint({name: tensor.numpy() for name, tensor in weights_of(network).items()}, spec)
