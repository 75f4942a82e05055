"""The check that export could not make: an engine that was built without its GPU, beside the bundle's float32 file.

It takes no data: pictures are generated, upright figures before a background, because noise would drive every part of
the network to the same few activations. What was found is kept beside the galleries and holds for one file on one GPU.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from bundle import EngineFile, ImageArray, Parity, Precision
from service.core.errors import StartupError
from service.inference.engine import Engine

log = logging.getLogger(__name__)

PICTURES = 32
BATCH_SIZES = (1, 7, 32)
GATES: dict[Precision, float] = {"float32": 0.99999, "float16": 0.999, "bfloat16": 0.99, "int8": 0.95}


class Verified(BaseModel):
    """What is kept of a verification."""

    where: str
    parity: Parity


def verified(file: EngineFile, engine: Engine, reference: Callable[[], Engine], folder: Path, where: str) -> Parity:
    """The parity of an engine on this machine: as remembered in `folder`, or measured now and remembered.

    `where` names library, version and GPU. Raises StartupError where the engine departs from the reference.
    """
    path = folder / f"{file.sha256}.json"
    known = _remembered(path)
    if known is not None and known.where == where:
        return known.parity
    log.info("verifying", extra={"file": file.name, "where": where})
    parity = compare(engine, reference(), file.precision)
    try:
        folder.mkdir(exist_ok=True)
        path.write_text(Verified(where=where, parity=parity).model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise StartupError(f"{path} cannot be written ({error}); give another --data") from error
    return parity


def compare(engine: Engine, reference: Engine, precision: Precision) -> Parity:
    """Both on the same pictures, in several batch sizes. Raises StartupError where they do not agree."""
    crops = pictures(PICTURES, engine.height, engine.width)
    expected = _unit(reference.embed(crops))
    gate = GATES[precision]
    apart = float((expected * np.roll(expected, 1, axis=0)).sum(1).mean())
    if not apart < gate:  # NaN, where it gives one of them no direction
        raise StartupError(
            f"the bundle gives nearly one vector (mean cosine {apart:.5f}) for different pictures, so agreement would "
            "prove nothing; train and export it again"
        )
    rows = {size: _unit(_in_batches(engine, crops, size)) for size in BATCH_SIZES}
    cosines = {size: (row * expected).sum(1) for size, row in rows.items()}
    for size, cosine in cosines.items():
        if not cosine.min() >= gate:  # NaN, where the engine gives a picture no direction
            raise StartupError(
                f"the {precision} engine departs from the bundle's float32 file: min cosine {cosine.min():.5f} at "
                f"batch {size} on {len(crops)} generated pictures, the gate is {gate}; build it again with "
                "`pan-export tensorrt BUNDLE`, or start with --engine onnxruntime"
            )
    alone = rows[BATCH_SIZES[0]]
    return Parity(
        data="generated figures, on the service's own machine, against float32 in ONNX Runtime",
        images=len(crops),
        batch_sizes=BATCH_SIZES,
        cosine_min=float(min(cosine.min() for cosine in cosines.values())),
        cosine_mean=float(np.mean(list(cosines.values()))),
        gate_cosine_min=gate,
        consistency_min=min(float((row * alone).sum(1).min()) for row in rows.values()),
    )


def pictures(count: int, height: int, width: int) -> ImageArray:
    """(count, height, width, 3) uint8: always the same figures of head, coat and legs, in colours of their own."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width - 0.5
    images = np.empty((count, height, width, 3), np.float32)
    for image in images:
        colour = random.uniform(20, 235, (6, 3)).astype(np.float32)
        shift, girth, waist = random.uniform(-0.1, 0.1), random.uniform(0.15, 0.28), random.uniform(0.48, 0.6)
        image[:] = colour[0] + (colour[1] - colour[0]) * y[..., None]
        stripes = np.sin(2 * np.pi * (random.uniform(2, 12) * y + random.uniform(-8, 8) * x)) > 0.3
        side = np.abs(x - shift)
        head = (side / 0.12) ** 2 + ((y - 0.13) / 0.08) ** 2 < 1
        coat = (side < girth) & (y > 0.2) & (y < waist)
        legs = (side < girth * 0.8) & (side > 0.02) & (y >= waist) & (y < 0.95)
        for part, tint in ((head, colour[2]), (coat, colour[3]), (coat & stripes, colour[4]), (legs, colour[5])):
            image[part] = tint
        image += random.normal(0, 8, image.shape)
    return np.clip(images, 0, 255).astype(np.uint8)


def _in_batches(engine: Engine, crops: ImageArray, size: int) -> npt.NDArray[np.float32]:
    return np.concatenate([engine.embed(crops[start : start + size]) for start in range(0, len(crops), size)])


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    unit: npt.NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _remembered(path: Path) -> Verified | None:
    try:
        return Verified.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
