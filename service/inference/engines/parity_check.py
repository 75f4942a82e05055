"""Parity of an engine that export could not run, with the bundle's float32 file as the reference.

The images are generated: upright figures before a background. Noise would not do, because it drives every part of the
network to the same few activations. The result is stored in the data folder, for one file on one GPU.
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

IMAGES = 32
BATCH_SIZES = (1, 7, 32)
GATES: dict[Precision, float] = {"float32": 0.99999, "float16": 0.999, "bfloat16": 0.99, "int8": 0.95}


class ParityRecord(BaseModel):
    """The stored result. `where` names library, version and GPU."""

    where: str
    parity: Parity


def check_parity(
    file: EngineFile, engine: Engine, reference: Callable[[], Engine], folder: Path, environment: str
) -> Parity:
    """The parity of an engine on this machine: read from `folder`, or measured and stored there.

    `environment` names library, version and GPU. Raises StartupError if the engine deviates from the reference, or if
    the result cannot be stored.
    """
    path = folder / f"{file.sha256}.json"
    record = _read(path)
    if record is not None and record.where == environment:
        return record.parity
    log.info("checking parity", extra={"file": file.name, "environment": environment})
    parity = measure_parity(engine, reference(), file.precision)
    try:
        folder.mkdir(exist_ok=True)
        path.write_text(ParityRecord(where=environment, parity=parity).model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise StartupError(f"{path} cannot be written ({error}); give another --data") from error
    return parity


def measure_parity(engine: Engine, reference: Engine, precision: Precision) -> Parity:
    """Embed the same images with both engines, in several batch sizes.

    Raises StartupError if a cosine is below the gate of the precision.
    """
    crops = generate_figures(IMAGES, engine.height, engine.width)
    expected = _unit(reference.embed(crops))
    gate = GATES[precision]
    between = float((expected * np.roll(expected, 1, axis=0)).sum(1).mean())
    if not between < gate:  # also if it is NaN, from a vector without a direction
        raise StartupError(
            f"the bundle embeds different images to nearly one vector (mean cosine {between:.5f}), so parity proves "
            "nothing; train and export it again"
        )
    vectors = {size: _unit(_in_batches(engine, crops, size)) for size in BATCH_SIZES}
    cosines = {size: (rows * expected).sum(1) for size, rows in vectors.items()}
    for size, cosine in cosines.items():
        if not cosine.min() >= gate:  # also if it is NaN, from a vector without a direction
            raise StartupError(
                f"the {precision} engine deviates from the bundle's float32 file: min cosine {cosine.min():.5f} at "
                f"batch {size} on {len(crops)} generated images, the gate is {gate}; build it again with "
                "`pan-export tensorrt BUNDLE`, or start with --engine onnxruntime"
            )
    single = vectors[BATCH_SIZES[0]]
    return Parity(
        data="generated figures, on the service's own machine, against float32 in ONNX Runtime",
        images=len(crops),
        batch_sizes=BATCH_SIZES,
        cosine_min=float(min(cosine.min() for cosine in cosines.values())),
        cosine_mean=float(np.mean(list(cosines.values()))),
        gate_cosine_min=gate,
        consistency_min=min(float((rows * single).sum(1).min()) for rows in vectors.values()),
    )


def generate_figures(count: int, height: int, width: int) -> ImageArray:
    """(count, height, width, 3) uint8: figures with head, coat and legs in random colours; the same in each call."""
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


def _read(path: Path) -> ParityRecord | None:
    try:
        return ParityRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
