"""Unit vectors from the numbers that callers send."""

from collections.abc import Sequence

import numpy as np

from service.core.errors import InvalidRequest
from service.core.types import Vectors
from service.core.vectors import CANNOT_NORMALIZE, is_undefined, normalize_rows
from service.galleries.commands import Numbers

_MIN_MEAN_LENGTH = 1e-5  # below it the direction of a mean is rounding error


def unit_vector(numbers: Numbers, dim: int) -> Vectors:
    """The (dim,) unit vector in the direction of `numbers`. Raises InvalidRequest."""
    if numbers.shape != (dim,):
        raise InvalidRequest(f"the vector has shape {list(numbers.shape)}; this model's vectors have [{dim}]")
    return _direction(numbers, f"the vector cannot be used: {CANNOT_NORMALIZE}; send it with unit length")


def mean_direction(vectors: Sequence[Vectors]) -> Vectors:
    """The direction of the mean of (D,) unit vectors. Raises InvalidRequest if they cancel out."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.stack(vectors).mean(0, np.float64)
    opposite = "the images point in opposite directions and have no mean"
    if np.linalg.norm(mean) < _MIN_MEAN_LENGTH:
        raise InvalidRequest(opposite)
    return _direction(mean, opposite)


def _direction(numbers: Numbers, otherwise: str) -> Vectors:
    rows = normalize_rows(numbers[None])
    if is_undefined(rows)[0]:
        raise InvalidRequest(otherwise)
    vector: Vectors = rows[0]
    return vector
