"""`manifest.json`: what a bundle holds, in typed, versioned, strict form."""

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


class Strict(BaseModel):
    """Unknown keys are refused: a typing error must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInfo(Strict):
    """The network whose weights are in every engine file of the bundle."""

    architecture: Literal["PAN"] = "PAN"
    variant: str
    backbone: str
    parts: int = Field(ge=1)
    embedding_size: int = Field(ge=1)
    parameters: int = Field(ge=1, description="exported parameters, training classifiers left out")
    fingerprint: Sha256 = Field(description="SHA-256 over weights and preprocessing")


class InputSpec(Strict):
    """What an engine takes: (B, height, width, 3) uint8 RGB. `mean` and `std` are already inside the graph."""

    height: int = Field(ge=16)
    width: int = Field(ge=16)
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    colour: Literal["RGB"] = "RGB"
    resize: Literal["bilinear-antialias"] = "bilinear-antialias"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class OutputSpec(Strict):
    """What an engine gives: (B, dim) float32 rows of unit length."""

    dim: int = Field(ge=1)
    dtype: Literal["float32"] = "float32"
    normalised: Literal[True] = True


class Parity(Strict):
    """How far an engine file departs from PyTorch, and on what it was measured."""

    data: str
    images: int = Field(ge=1)
    batch_sizes: tuple[int, ...]
    cosine_min: Cosine
    cosine_mean: Cosine
    gate_cosine_min: Cosine
    mAP_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    rank1_difference: float | None = Field(default=None, description="points, engine minus PyTorch")


class BatchProfile(Strict):
    """Batch sizes an engine accepts; `max` is None where the graph is fully dynamic."""

    min: int = Field(default=1, ge=1)
    opt: int | None = Field(default=None, ge=1)
    max: int | None = Field(default=None, ge=1)


class BuiltFor(Strict):
    """The GPU and library a TensorRT engine was compiled for; it runs nowhere else."""

    gpu: str
    compute_capability: str
    library_version: str


class EngineFile(Strict):
    """One engine file: what it is, which bytes it must have, how well it agrees with PyTorch."""

    name: FileName
    kind: Literal["onnx", "tensorrt"]
    precision: Literal["float32", "float16", "bfloat16", "int8"]
    batch: BatchProfile = BatchProfile()
    bytes: int = Field(ge=1)
    sha256: Sha256
    parity: Parity
    built_for: BuiltFor | None = None


class Evaluation(Strict):
    """Retrieval quality of the PyTorch model, in per cent, with the data it was measured on."""

    data: str
    queries: int
    gallery: int
    mAP: float
    mAP_official: float
    mINP: float
    cmc: dict[int, float] = Field(description="rank -> per cent of queries answered by that rank")


class Calibration(Strict):
    """Similarity thresholds at stated false-positive rates, and similarity -> probability of same person."""

    data: str
    thresholds: dict[str, float] = Field(description='false-positive rate, such as "0.001" -> cosine')
    slope: float = Field(description="probability = 1 / (1 + exp(-(slope * cosine + intercept)))")
    intercept: float


class Provenance(Strict):
    """Where the weights come from."""

    data: str
    recipe: str
    iterations: int
    seed: int
    commit: str | None = None
    licence_notes: str = ""


class Manifest(Strict):
    """The one contract between export and service."""

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
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two files of the bundle have one name")
        return self
