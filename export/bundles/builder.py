"""Builds the files of a bundle and measures its engines."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch

from bundle import BatchProfile, EngineFile, InputSpec, Precision, sha256_file
from export.bundles.targets import MeasurementSettings, Target
from export.bundles.writer import save_onnx
from export.engines import onnx_embedder, open_engine
from export.errors import EngineMissing, ParityError
from export.onnx.explain import compare_maps, explain_graph
from export.onnx.float16 import check_float16_range, to_float16
from export.parity.agreement import Agreement, Reference, check_gates
from export.parity.samples import calibration_crops
from export.quantisation.qdq import calibrate
from export.quantisation.sensitivity import quantise_within_gates
from training.callbacks import StepCallback
from training.embed import Embed
from training.model import PAN

EXPLAIN_FILE = "explain.float32.onnx"


class BundleBuilder:
    """Fills a bundle folder: makes ONNX files when they are first needed and measures every target."""

    def __init__(
        self,
        folder: Path,
        graph: onnx.ModelProto,
        spec: InputSpec,
        reference: Reference,
        measuring: MeasurementSettings,
        step: StepCallback,
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
        """As `add`, but a failure is stored in `refused` with its reason."""
        start = time.monotonic()
        try:
            self.add(target)
        except (ParityError, EngineMissing) as error:
            self.refused[target.label] = str(error)
        self.seconds[target.label] = time.monotonic() - start

    def add(self, target: Target) -> None:
        """Make the target's file, measure it and add its entry. Raises ParityError or EngineMissing."""
        gates = self.measuring.gates[target.precision]
        path = self._file(target.file_precision)
        self.step(f"comparing {target.label} with PyTorch")
        engine = open_engine(target.kind, target.precision, path, self.threads)
        agreement = self.reference.compare(engine)
        check_gates(agreement, gates)
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

    def add_explain_graph(self, network: PAN, opset: int) -> None:
        """Add the explain graph (part masks and compatibility maps). Raises ParityError."""
        self.step("making the explain graph")
        path = self.folder / EXPLAIN_FILE
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

    def remove_unnamed_files(self) -> None:
        """Delete files without an entry: those of targets that failed."""
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
                check_float16_range(self.graph, half, self.reference.samples.images_NHW3)
                return half
            case "int8":
                crops = calibration_crops(self.measuring.data, self.spec, self.measuring.calibration)
                gates = self.measuring.gates["int8"]
                found = quantise_within_gates(calibrate(self.graph, crops), self.reference, gates, self._open)
                if found.float_blocks:
                    self.float_blocks = f"{found.float_blocks} of {found.blocks}"
                return found.model
            case _:
                return self.graph

    def _open(self, model: onnx.ModelProto) -> Embed:
        self.step("comparing a candidate for INT8 with PyTorch")
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "candidate.onnx"
            onnx.save_model(model, path)
            return onnx_embedder(path, self.threads)
