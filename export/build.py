"""Checkpoint -> ONNX -> other precisions -> each measured against PyTorch -> bundle.

float32 ONNX is what everything else is made from: where it fails its gates, nothing is written. Another precision that
fails is left out of the bundle, and the caller is told.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch

from bundle import (
    BatchProfile,
    EngineFile,
    InputSpec,
    Kind,
    Manifest,
    ModelInfo,
    OutputSpec,
    Precision,
    fingerprint,
    save_manifest,
    sha256_file,
)
from export.engines import onnx_embedder, open_engine
from export.errors import EngineMissing, ExportError, ParityError
from export.explain import compare_maps, explain_graph
from export.gates import DEFAULTS, Gates
from export.half import require_room, to_float16
from export.onnx_graph import OPSET, onnx_graph
from export.parity import Agreement, Reference, require
from export.quantise import calibrate
from export.reduce import Reduction, SizeCost, reduce_network
from export.samples import calibration_crops, measuring_samples
from export.sensitivity import quantise_to_pass
from export.timing import milliseconds_a_crop
from export.write import new_bundle, require_free, save_onnx
from training.checkpoint import Card, load_checkpoint, weights_of
from training.embed import Embed, torch_embedder
from training.evaluation import calibrate as calibrate_pairs
from training.model import PAN

TIMED_BATCH, TIMED_ROUNDS = 8, 3

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Target:
    """One runtime at one precision: what an entry of the bundle is about."""

    kind: Kind
    precision: Precision

    @property
    def label(self) -> str:
        """`onnx:int8`, as users write it."""
        return f"{self.kind}:{self.precision}"

    @property
    def file_precision(self) -> Precision:
        """The precision of the ONNX file: OpenVINO computes bfloat16 from the float32 one."""
        return "float32" if self.precision == "bfloat16" else self.precision


EXPLAIN = "explain.float32.onnx"
FLOAT32 = Target("onnx", "float32")
TARGETS = {
    target.label: target
    for target in (
        FLOAT32,
        Target("onnx", "float16"),
        Target("onnx", "int8"),
        Target("openvino", "float32"),
        Target("openvino", "bfloat16"),
        Target("openvino", "int8"),
    )
}


def parse_target(text: str) -> Target:
    """`onnx:int8` -> the target. Raises ExportError naming those there are."""
    if text not in TARGETS:
        raise ExportError(f"{text!r} is not an engine that can be made from a checkpoint: {', '.join(TARGETS)}")
    return TARGETS[text]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """On what engines are measured, and what they must reach. Without `data` it is synthetic people."""

    data: Path | None = None
    images: int = 64  # whose descriptors are compared
    ranked: int = 2000  # about how many are ranked
    calibration: int = 128  # training crops that INT8 takes its ranges from
    gates: Mapping[Precision, Gates] = field(default_factory=lambda: DEFAULTS)


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
    sizes: list[SizeCost] = field(default_factory=list)  # what smaller descriptors cost, where one was asked for


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    targets: Sequence[Target] = (),
    measuring: Measuring = Measuring(),
    reduction: Reduction | None = None,
    explain: bool = False,
    opset: int = OPSET,
    overwrite: bool = False,
    step: Step = lambda _: None,
) -> Exported:
    """Write the bundle of a checkpoint: float32 ONNX, and of `targets` whatever passes its gates.

    With `reduction` its descriptors are projected to fewer numbers; with `explain` it has the graph of maps as well.

    `step` is told what is being done. Raises ExportError, CheckpointError or DataError; then `out` is as it was.
    """
    require_free(out.resolve(), overwrite)  # before the minutes that the rest takes
    network, card = load_checkpoint(checkpoint)
    spec = card.input
    step("reading crops" if measuring.data else "rendering synthetic people")
    samples = measuring_samples(measuring.data, spec, measuring.images, measuring.ranked)
    sizes = reduce_network(network, spec, reduction, measuring.data, samples, step) if reduction else []
    info = model_info(network, card)
    embed = torch_embedder(network, spec)
    step("PyTorch on the crops")
    reference = Reference(embed, samples)
    if reduction:  # what training measured was measured on other descriptors
        measured = {"evaluation": reference.evaluation, "calibration": calibrate_pairs(reference.embedded)}
        card = card.model_copy(update=measured)
    with new_bundle(out, overwrite) as folder:
        step("tracing the network")
        start = time.monotonic()
        graph = onnx_graph(network, spec, {"fingerprint": info.fingerprint, "variant": info.variant}, opset)
        bench = _Bench(folder, graph, spec, reference, measuring, step)
        bench.add(FLOAT32)
        bench.seconds[FLOAT32.label] = time.monotonic() - start
        if explain:
            bench.add_maps(network, opset)
        for target in dict.fromkeys(targets):
            if target != FLOAT32:
                bench.try_to_add(target)
        manifest = Manifest(
            model=info,
            input=spec,
            output=OutputSpec(dim=info.embedding_size),
            files=tuple(bench.entries),
            evaluation=card.evaluation,
            calibration=card.calibration,
            provenance=card.provenance,
        )
        bench.remove_strays()
        save_manifest(folder, manifest)
        step("timing")
        engines = {"PyTorch": embed, **bench.engines}
        milliseconds = milliseconds_a_crop(engines, samples.images_NHW3[:TIMED_BATCH], TIMED_ROUNDS)
    return Exported(
        out, manifest, bench.agreement, milliseconds, bench.seconds, bench.refused, bench.float_blocks, sizes
    )


class _Bench:
    """A bundle folder in the making: ONNX files are made when first needed, and every target is measured."""

    def __init__(
        self,
        folder: Path,
        graph: onnx.ModelProto,
        spec: InputSpec,
        reference: Reference,
        measuring: Measuring,
        step: Step,
    ) -> None:
        self.folder, self.graph, self.spec = folder, graph, spec
        self.reference, self.measuring, self.step = reference, measuring, step
        self.threads = torch.get_num_threads()
        self.entries: list[EngineFile] = []
        self.engines: dict[str, Embed] = {}
        self.agreement: dict[str, Agreement] = {}
        self.seconds: dict[str, float] = {}
        self.refused: dict[str, str] = {}
        self.float_blocks: str | None = None

    def try_to_add(self, target: Target) -> None:
        """As `add`; a target that fails is noted with its reason."""
        start = time.monotonic()
        try:
            self.add(target)
        except (ParityError, EngineMissing) as error:
            self.refused[target.label] = str(error)
        self.seconds[target.label] = time.monotonic() - start

    def add(self, target: Target) -> None:
        """Make the target's file, measure it and enter it. Raises ParityError or EngineMissing."""
        gates = self.measuring.gates[target.precision]
        path = self._file(target.file_precision)
        self.step(f"comparing {target.label} with PyTorch")
        engine = open_engine(target.kind, target.precision, path, self.threads)
        agreement = self.reference.compare(engine)
        require(agreement, gates)
        self.engines[target.label], self.agreement[target.label] = engine, agreement
        self.entries.append(
            EngineFile(
                name=path.name,
                kind=target.kind,
                precision=target.precision,
                batch=BatchProfile(),
                bytes=path.stat().st_size,
                sha256=sha256_file(path),
                parity=agreement.parity(gates),
            )
        )

    def add_maps(self, network: PAN, opset: int) -> None:
        """Enter the graph of maps. Raises ParityError."""
        self.step("making the explain graph")
        path = self.folder / EXPLAIN
        metadata = {entry.key: entry.value for entry in self.graph.metadata_props}
        save_onnx(explain_graph(network, self.spec, metadata, opset), path)
        samples = self.reference.samples
        self.entries.append(
            EngineFile(
                name=path.name,
                kind="onnx",
                precision="float32",
                purpose="explain",
                bytes=path.stat().st_size,
                sha256=sha256_file(path),
                parity=compare_maps(network, self.spec, path, samples.images_NHW3, samples.name),
            )
        )

    def remove_strays(self) -> None:
        """Delete files that no entry names: those of targets that failed."""
        named = {entry.name for entry in self.entries}
        for path in self.folder.iterdir():
            if path.name not in named:
                path.unlink()

    def _file(self, precision: Precision) -> Path:
        path = self.folder / f"model.{precision}.onnx"
        if not path.exists():
            self.step(f"making {path.name}")
            save_onnx(self._model(precision), path)
        return path

    def _model(self, precision: Precision) -> onnx.ModelProto:
        match precision:
            case "float16":
                half = to_float16(self.graph)
                require_room(self.graph, half, self.reference.samples.images_NHW3)
                return half
            case "int8":
                crops = calibration_crops(self.measuring.data, self.spec, self.measuring.calibration)
                gates = self.measuring.gates["int8"]
                found = quantise_to_pass(calibrate(self.graph, crops), self.reference, gates, self._open)
                if found.float_blocks:
                    self.float_blocks = f"{found.float_blocks} of {found.blocks}"
                return found.model
            case _:
                return self.graph

    def _open(self, model: onnx.ModelProto) -> Embed:
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "candidate.onnx"
            onnx.save_model(model, path)
            return onnx_embedder(path, self.threads)


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
