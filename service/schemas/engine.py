"""What the engine gives: embeddings, maps; and the service about itself."""

from typing import Any, Literal

from pydantic import Field

from bundle import Calibration, Parity
from service.schemas.base import Answer, ItemError, Request


class EmbedOptions(Request):
    encoding: Literal["float", "base64"] = Field(default="float", description="base64: float32, little-endian")


class Embedding(Answer):
    index: int
    embedding: list[float] | str | None = None
    error: ItemError | None = None


class Embeddings(Answer):
    fingerprint: str
    dim: int
    embeddings: list[Embedding]


class Map(Answer):
    name: str = Field(description="masks, or compatibility_1 and so on for each block of part-aware attention")
    shape: list[int] = Field(description="parts, height, width")
    values: list[list[list[float]]] | str = Field(description="or base64: float32, little-endian, rows first")


class Explanation(Answer):
    index: int
    maps: list[Map] | None = None
    error: ItemError | None = None


class Explanations(Answer):
    fingerprint: str
    explanations: list[Explanation]


class Model(Answer):
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


class Health(Answer):
    status: Literal["ok"] = "ok"


class Readiness(Health):
    failing: list[str] = Field(
        description="background work whose last round failed; it is tried again, and the log says why it failed"
    )
    set_aside: int = Field(description="entries that are damaged and answer no search; see `pan-serve check`")
    galleries_set_aside: int = Field(
        default=0, description="galleries that are damaged and not served; the log names them, see `pan-serve check`"
    )
