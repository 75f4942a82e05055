"""Checkpoint -> ONNX -> measured against PyTorch -> bundle. An export that fails its gate leaves nothing behind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bundle import EngineFile, InputSpec, Manifest, ModelInfo, OutputSpec, fingerprint, save_manifest, sha256_file
from export.engines import onnx_embedder
from export.onnx_graph import OPSET, onnx_graph
from export.parity import MIN_COSINE, Agreement, compare, require
from export.samples import Samples, read_samples, synthetic_samples
from export.timing import milliseconds_a_crop
from export.write import new_bundle, require_free, save_onnx
from training.checkpoint import Card, load_checkpoint, weights_of
from training.embed import Embed, torch_embedder
from training.model import PAN

ONNX_FLOAT32 = "model.float32.onnx"
TIMED_BATCH, TIMED_ROUNDS = 8, 3

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote and saw."""

    out: Path
    manifest: Manifest
    agreement: Agreement
    milliseconds: dict[str, float]  # a crop, by engine, at batch `TIMED_BATCH`


def export_onnx(
    checkpoint: Path,
    out: Path,
    *,
    data: Path | None = None,
    images: int = 64,
    min_cosine: float = MIN_COSINE,
    opset: int = OPSET,
    overwrite: bool = False,
    step: Step = lambda _: None,
) -> Exported:
    """Write the bundle of a checkpoint with its float32 ONNX file, measured on crops of `data` or synthetic people.

    `step` is told what is being done. Raises ExportError, CheckpointError or DataError; then `out` is as it was.
    """
    require_free(out.resolve(), overwrite)  # before the minute that the rest takes
    network, card = load_checkpoint(checkpoint)
    info = model_info(network, card)
    step("reading crops" if data else "rendering synthetic people")
    samples = read_samples(data, card.input, images) if data else synthetic_samples(card.input, images)
    reference = torch_embedder(network, card.input)
    with new_bundle(out, overwrite) as folder:
        path = folder / ONNX_FLOAT32
        step("tracing the network")
        metadata = {"fingerprint": info.fingerprint, "variant": info.variant}
        save_onnx(onnx_graph(network, card.input, metadata, opset), path)
        step("comparing with PyTorch")
        engine = onnx_embedder(path, torch.get_num_threads())
        agreement = compare(reference, engine, samples.images_NHW3)
        require(agreement, min_cosine)
        file = EngineFile(
            name=path.name,
            kind="onnx",
            precision="float32",
            bytes=path.stat().st_size,
            sha256=sha256_file(path),
            parity=agreement.parity(samples.name, min_cosine),
        )
        manifest = Manifest(
            model=info,
            input=card.input,
            output=OutputSpec(dim=info.embedding_size),
            files=(file,),
            evaluation=card.evaluation,
            calibration=card.calibration,
            provenance=card.provenance,
        )
        save_manifest(folder, manifest)
        step("timing")
        milliseconds = _time({"PyTorch": reference, "ONNX Runtime": engine}, samples)
    return Exported(out, manifest, agreement, milliseconds)


def model_info(network: PAN, card: Card) -> ModelInfo:
    """What the manifest says about a network."""
    return ModelInfo(
        variant=card.variant,
        backbone=network.config.backbone.name,
        parts=network.config.parts,
        embedding_size=network.embedding_size,
        parameters=network.parameter_count(),
        fingerprint=model_fingerprint(network, card.input),
    )


def model_fingerprint(network: PAN, spec: InputSpec) -> str:
    """The identity of the embedding space of a network and its preprocessing."""
    return fingerprint({name: tensor.numpy() for name, tensor in weights_of(network).items()}, spec)


def _time(engines: dict[str, Embed], samples: Samples) -> dict[str, float]:
    batch = samples.images_NHW3[:TIMED_BATCH]
    return milliseconds_a_crop(engines, batch, TIMED_ROUNDS)
