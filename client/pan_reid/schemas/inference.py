"""Embeddings, feature maps, the model, and health."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pan_reid.schemas.base import ItemError, Request, Response


class EmbedOptions(Request):
    encoding: Literal["float", "base64"] = Field(default="float", description="base64: float32, little-endian")


class Embedding(Response):
    index: int
    embedding: list[float] | str | None = None
    error: ItemError | None = None


class Embeddings(Response):
    fingerprint: str
    dim: int
    embeddings: list[Embedding]


class FeatureMap(Response):
    name: str = Field(
        description="masks, or compatibility_1, compatibility_2, ... for each block of part-aware attention"
    )
    shape: list[int] = Field(description="parts, height, width")
    values: list[list[list[float]]] | str = Field(
        description="nested lists, or base64 of float32, little-endian, in row-major order"
    )


class Explanation(Response):
    index: int
    maps: list[FeatureMap] | None = None
    error: ItemError | None = None


class Explanations(Response):
    fingerprint: str
    explanations: list[Explanation]


_Cosine = Annotated[float, Field(ge=-1.0 - 1e-6, le=1.0 + 1e-6)]


class Parity(Response):
    """The measured difference between an engine file and PyTorch, the data of the measurement, and the gates."""

    data: str
    images: int = Field(ge=1)
    batch_sizes: tuple[int, ...]
    cosine_min: _Cosine
    cosine_mean: _Cosine
    gate_cosine_min: _Cosine
    consistency_min: _Cosine | None = Field(
        default=None, description="smallest cosine between vectors of one crop in different batch sizes and positions"
    )
    mAP_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    rank1_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    gate_mAP_loss: float | None = Field(default=None, description="points; null: the difference was not gated")


class Calibration(Response):
    """Thresholds of the cosine at stated false-positive rates, and the probability that a pair is one person."""

    data: str
    thresholds: dict[str, float] = Field(description='cosine by false-positive rate, such as "0.001"')
    slope: float = Field(description="probability = 1 / (1 + exp(-(slope * cosine + intercept)))")
    intercept: float


class Model(Response):
    architecture: str
    variant: str
    backbone: str
    parts: int
    parameters: int
    fingerprint: str
    dim: int
    input_height: int
    input_width: int
    engine: str = Field(description="the runtime: onnxruntime, openvino, tensorrt or tensorrt_rtx")
    device: str
    precision: str
    file: str = Field(description="the engine file of the bundle")
    reason: str = Field(description="why this engine was selected, and why others were not")
    max_batch: int = Field(description="crops per engine call")
    parity: Parity = Field(description="measured difference to PyTorch")
    evaluation: dict[str, Any] | None
    calibration: Calibration | None = Field(description="null: no calibration; decide by a `threshold`")
    licence_notes: str


class Health(Response):
    status: Literal["ok"] = "ok"


class Readiness(Health):
    failing: list[str] = Field(
        description="background workers whose last run failed. The service retries them, and logs the cause"
    )
    set_aside: int = Field(description="number of damaged entries, which are not searched; see `pan-serve check`")
    galleries_set_aside: int = Field(
        default=0,
        description="number of damaged galleries, which are not served. The log names them; see `pan-serve check`",
    )
