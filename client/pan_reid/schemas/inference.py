"""What the engine gives: embeddings, maps; and the service about itself."""

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
    name: str = Field(description="masks, or compatibility_1 and so on for each block of part-aware attention")
    shape: list[int] = Field(description="parts, height, width")
    values: list[list[list[float]]] | str = Field(description="or base64: float32, little-endian, rows first")


class Explanation(Response):
    index: int
    maps: list[FeatureMap] | None = None
    error: ItemError | None = None


class Explanations(Response):
    fingerprint: str
    explanations: list[Explanation]


_Cosine = Annotated[float, Field(ge=-1.0 - 1e-6, le=1.0 + 1e-6)]


class Parity(Response):
    """How far an engine file departs from PyTorch, on what it was measured, and the gates it passed."""

    data: str
    images: int = Field(ge=1)
    batch_sizes: tuple[int, ...]
    cosine_min: _Cosine
    cosine_mean: _Cosine
    gate_cosine_min: _Cosine
    consistency_min: _Cosine | None = Field(
        default=None, description="least cosine of a crop with itself in another batch size and position"
    )
    mAP_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    rank1_difference: float | None = Field(default=None, description="points, engine minus PyTorch")
    gate_mAP_loss: float | None = Field(default=None, description="points; None: the difference was not gated")


class Calibration(Response):
    """Similarity thresholds at stated false-positive rates, and similarity -> probability of same person."""

    data: str
    thresholds: dict[str, float] = Field(description='false-positive rate, such as "0.001" -> cosine')
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
    reason: str = Field(description="why this engine runs, and what was passed over")
    max_batch: int = Field(description="crops an engine run")
    parity: Parity = Field(description="how well the file agrees with PyTorch, and on what that was measured")
    evaluation: dict[str, Any] | None
    calibration: Calibration | None = Field(description="how cosines become decisions; null: by thresholds of your own")
    licence_notes: str


class Health(Response):
    status: Literal["ok"] = "ok"


class Readiness(Health):
    failing: list[str] = Field(
        description="background work whose last round failed; it is tried again, and the log says why it failed"
    )
    set_aside: int = Field(description="entries that are damaged and answer no search; see `pan-serve check`")
    galleries_set_aside: int = Field(
        default=0, description="galleries that are damaged and not served; the log names them, see `pan-serve check`"
    )
