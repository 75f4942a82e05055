"""The schema of `manifest.json`, which describes the files of a bundle."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _plain_name(name: str) -> str:
    if "/" in name or "\\" in name or name in {"", ".", "..", "manifest.json"}:
        raise ValueError("a bundle file is named by a plain file name inside the bundle's folder")
    return name


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_plain_name)]
Cosine = Annotated[float, Field(ge=-1.0 - 1e-6, le=1.0 + 1e-6)]


class StrictModel(BaseModel):
    """Refuses unknown keys, so that a misspelt key is an error and not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInfo(StrictModel):
    """The network whose weights are in every engine file of the bundle."""

    architecture: Literal["PAN"] = "PAN"
    variant: str
    backbone: str
    parts: int = Field(ge=1)
    embedding_size: int = Field(ge=1)
    reduced_from: int | None = Field(default=None, description="numbers before the projection to embedding_size")
    parameters: int = Field(ge=1, description="exported parameters, training classifiers left out")
    fingerprint: Sha256 = Field(description="SHA-256 over weights and preprocessing")


class InputSpec(StrictModel):
    """The input of an engine: (B, height, width, 3) uint8 RGB. The graph applies `mean` and `std` itself."""

    height: int = Field(ge=16)
    width: int = Field(ge=16)
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    colour: Literal["RGB"] = "RGB"
    resize: Literal["bilinear-antialias"] = "bilinear-antialias"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class OutputSpec(StrictModel):
    """The output of an engine: (B, dim) float32 rows of unit length."""

    dim: int = Field(ge=1)
    dtype: Literal["float32"] = "float32"
    normalised: Literal[True] = True


class Parity(StrictModel):
    """Differences between an engine and PyTorch, the data they were measured on, and the gates."""

    data: str
    images: int = Field(ge=1)
    batch_sizes: tuple[int, ...]
    cosine_min: Cosine
    cosine_mean: Cosine
    gate_cosine_min: Cosine
    consistency_min: Cosine | None = Field(
        default=None, description="least cosine of a crop with itself in another batch size and position"
    )
    mAP_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    rank1_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    gate_mAP_loss: float | None = Field(default=None, description="points; None: the difference was not gated")


class BatchProfile(StrictModel):
    """Batch sizes that an engine accepts; `max` is None if there is no limit. `opt` is the one it is optimised for."""

    min: int = Field(default=1, ge=1)
    opt: int | None = Field(default=None, ge=1)
    max: int | None = Field(default=None, ge=1)


class BuiltFor(StrictModel):
    """The GPU and library that a TensorRT engine was compiled for; it does not run on others."""

    library_version: str
    gpu: str | None = Field(default=None, description="None: built ahead of time, on a machine without one")
    compute_capability: str | None = Field(default=None, description='such as "8.9"; None: any the library supports')
    hardware_compatibility: str = Field(default="none", description="the library's name for what else it may run on")
    version_compatible: bool = Field(default=False, description="later versions of the library may load it")


Kind = Literal["onnx", "openvino", "tensorrt", "tensorrt_rtx"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
Purpose = Literal["embed", "explain"]


class EngineFile(StrictModel):
    """One engine: a file with its size and hash, the runtime that computes it, and its agreement with PyTorch.

    `kind` is the runtime that was measured: ONNX Runtime, OpenVINO, TensorRT. OpenVINO reads the ONNX files and chooses
    the precision when it loads them, so two entries may name one file.
    """

    name: FileName
    kind: Kind
    precision: Precision
    purpose: Purpose = "embed"
    batch: BatchProfile = BatchProfile()
    bytes: int = Field(ge=1)
    sha256: Sha256
    parity: Parity | None = Field(description="None: unverified, the engine never ran beside PyTorch")
    built_for: BuiltFor | None = None

    @property
    def label(self) -> str:
        """`onnx float32`, `tensorrt float16 explain`."""
        return f"{self.kind} {self.precision}" + ("" if self.purpose == "embed" else f" {self.purpose}")

    @model_validator(mode="after")
    def _only_tensorrt_may_be_unverified(self) -> "EngineFile":
        compiled = self.kind in ("tensorrt", "tensorrt_rtx")
        if self.parity is None and not compiled:
            raise ValueError(f"{self.label} has no parity; only TensorRT engines may be unverified")
        if (self.built_for is not None) != compiled:
            raise ValueError(f"{self.label}: every TensorRT engine has built_for, and no other engine has")
        return self


class Evaluation(StrictModel):
    """Retrieval quality of the PyTorch model, in per cent, with the data it was measured on."""

    data: str
    queries: int
    gallery: int
    mAP: float
    mAP_official: float
    mINP: float
    cmc: dict[int, float] = Field(description="rank -> per cent of queries answered by that rank")


class Calibration(StrictModel):
    """Similarity thresholds at stated false-positive rates, and similarity -> probability of same person."""

    data: str
    thresholds: dict[str, float] = Field(description='false-positive rate, such as "0.001" -> cosine')
    slope: float = Field(description="probability = 1 / (1 + exp(-(slope * cosine + intercept)))")
    intercept: float


class Provenance(StrictModel):
    """Where the weights come from."""

    data: str
    recipe: str
    iterations: int
    seed: int
    commit: str | None = None
    licence_notes: str = ""


class Manifest(StrictModel):
    """The contract between export and service."""

    schema_version: Literal[1] = 1
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    model: ModelInfo
    input: InputSpec
    output: OutputSpec
    files: tuple[EngineFile, ...] = Field(min_length=1)
    evaluation: Evaluation | None = None
    calibration: Calibration | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if self.output.dim != self.model.embedding_size:
            raise ValueError("output.dim and model.embedding_size differ")
        entries = {(file.kind, file.precision, file.purpose, file.built_for) for file in self.files}
        if len(entries) != len(self.files):
            raise ValueError("two entries of the bundle are of one kind, precision and purpose")
        if len({file.name for file in self.files}) != len({(file.name, file.sha256) for file in self.files}):
            raise ValueError("two files of the bundle have one name")
        return self
