"""Targets of an export (runtime and precision), and how they are measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle import EngineFile, Kind, Precision
from export.errors import ExportError
from export.parity.gates import DEFAULTS, Gates
from training.config import unknown_name
from training.precision import full_precision_name


@dataclass(frozen=True, slots=True)
class Target:
    """One runtime at one precision: one entry of the bundle."""

    kind: Kind
    precision: Precision

    @property
    def label(self) -> str:
        """`onnx:int8`, as users write it."""
        return f"{self.kind}:{self.precision}"

    @property
    def file_precision(self) -> Precision:
        """The precision of the ONNX file: OpenVINO computes bfloat16 from the float32 file."""
        return "float32" if self.precision == "bfloat16" else self.precision


FLOAT32 = Target("onnx", "float32")
EXPLAIN = "explain"  # the label of the explain graph
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
    """`onnx:int8` -> the target. Raises ExportError that names the nearest known label."""
    if text.startswith("tensorrt"):
        raise ExportError(f"--engine {text}: TensorRT engines are added to a finished bundle by `pan-export tensorrt`")
    return TARGETS[parse_label(text, list(TARGETS))]


def parse_label(text: str, known: Sequence[str]) -> str:
    """`onnx:fp16` -> `onnx:float16`. Raises ExportError that names the nearest known label."""
    label = ":".join(map(full_precision_name, text.split(":")))
    if label not in known:
        raise ExportError(unknown_name(label, known))
    return label


def entry_label(entry: EngineFile) -> str:
    """The label of a manifest entry, such as `onnx:float16` or `explain`."""
    return EXPLAIN if entry.purpose == "explain" else f"{entry.kind}:{entry.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementSettings:
    """The crops that engines are measured on, and their gates. Without `data` the crops are synthetic people."""

    data: Path | None = None
    images: int = 64  # crops whose descriptors are compared
    ranked: int = 2000  # approximate number of crops that are ranked
    calibration: int = 128  # training crops for INT8 calibration
    gates: Mapping[Precision, Gates] = field(default_factory=lambda: DEFAULTS)


SYNTHETIC = MeasurementSettings()  # synthetic people, default gates
