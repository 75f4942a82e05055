"""Measures the engines of a bundle again, on this machine and the given crops."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bundle import Bundle, EngineFile, load_bundle
from export.bundles.exporter import model_fingerprint
from export.bundles.targets import MeasurementSettings
from export.engines import onnx_embedder, open_engine
from export.errors import BuildError, EngineMissing, ExportError, ParityError
from export.parity.agreement import Agreement, Reference, check_gates
from export.parity.gates import DEFAULTS, Gates
from export.parity.samples import load_samples
from export.tensorrt.runtime import open_tensorrt_engine
from training.callbacks import StepCallback
from training.checkpoint import load_checkpoint
from training.embed import Embed, torch_embedder


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for an entry: `agreement` if it ran, `problem` if it failed, `skipped` if it cannot run here."""

    entry: EngineFile
    agreement: Agreement | None = None
    problem: str | None = None
    skipped: str | None = None


def verify_bundle(
    folder: Path, checkpoint: Path | None, measuring: MeasurementSettings, step: StepCallback = lambda _: None
) -> list[Verdict]:
    """Measure every engine of a bundle against the gates in its manifest.

    The reference is the checkpoint in PyTorch, or without a checkpoint the bundle's float32 ONNX file.
    Raises BundleError if the bundle is damaged, ExportError if the checkpoint is another model.
    """
    bundle = load_bundle(folder)
    step("reading crops" if measuring.data else "rendering synthetic people")
    samples = load_samples(measuring.data, bundle.manifest.input, measuring.images, measuring.ranked)
    step("the reference on the crops")
    reference = Reference(_reference(bundle, checkpoint), samples)
    verdicts = []
    for entry in bundle.manifest.files:
        step(f"measuring {entry.label}")
        verdicts.append(_verify_entry(bundle, entry, reference))
    return verdicts


def _reference(bundle: Bundle, checkpoint: Path | None) -> Embed:
    if checkpoint is None:
        return onnx_embedder(bundle.file("onnx", "float32")[1], torch.get_num_threads())
    network, card = load_checkpoint(checkpoint)
    if model_fingerprint(network, card.input) != bundle.manifest.model.fingerprint:
        raise ExportError(
            f"{checkpoint} is not the model of {bundle.path}: their fingerprints differ; pass the checkpoint of the "
            "export, or none"
        )
    return torch_embedder(network, card.input)


def _verify_entry(bundle: Bundle, entry: EngineFile, reference: Reference) -> Verdict:
    if entry.purpose != "embed":
        return Verdict(entry, skipped="outputs maps, not descriptors; it was compared at export")
    try:
        engine = _open(entry, bundle.path / entry.name)
    except EngineMissing as error:
        return Verdict(entry, skipped=str(error))
    except BuildError as error:
        return Verdict(entry, problem=str(error))
    agreement = None
    try:
        agreement = reference.compare(engine)
        check_gates(agreement, _gates_at_export(entry))
    except (ParityError, BuildError) as error:
        return Verdict(entry, agreement, problem=str(error))
    return Verdict(entry, agreement)


def _open(entry: EngineFile, path: Path) -> Embed:
    if entry.kind in ("tensorrt", "tensorrt_rtx"):
        return open_tensorrt_engine(entry, path)
    return open_engine(entry.kind, entry.precision, path, torch.get_num_threads())


def _gates_at_export(entry: EngineFile) -> Gates:
    """The gates that the entry passed when it was exported."""
    gates = DEFAULTS[entry.precision]
    if entry.parity is None:
        return gates
    loss, consistency = entry.parity.gate_mAP_loss, entry.parity.consistency_min
    return replace(
        gates,
        min_cosine=entry.parity.gate_cosine_min,
        # the manifest does not state a consistency gate: allow twice the deviation that was measured at export
        min_consistency=min(gates.min_consistency, 1 if consistency is None else 2 * consistency - 1),
        max_mAP_loss=gates.max_mAP_loss if loss is None else loss,
    )
