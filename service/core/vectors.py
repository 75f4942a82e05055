"""Unit vectors: the one place where numbers become a direction, and where vectors that were kept are checked."""

import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Vectors

# A length under the smallest normal number of float32 has lost digits; over the largest there is no number.
_SHORTEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_EXACT = 1e-5  # of the length: nearer to 1 is rounding, and such a vector stays as it is, bit by bit
_KEPT = 1e-2  # of the squared length: earlier releases kept what engines in float16 and int8 gave

NO_DIRECTION = "it is zero, not finite, or its numbers are too small or too large for float32, so it has no direction"


def unit_rows(numbers: npt.NDArray[np.floating]) -> Vectors:
    """(N, D) numbers -> (N, D) float32 of unit length; a row that has no direction becomes NaN.

    The arithmetic is in float64: in float32 a square overflows from 1.8e19 on, and vanishes below 1e-23.
    """
    wide = numbers.astype(np.float64)
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        unit: Vectors = (wide / lengths[:, None]).astype(np.float32)
        exact = np.abs(lengths - 1.0) <= _EXACT
        unit[exact] = numbers[exact]
        usable = (lengths >= _SHORTEST) & (np.abs(wide).max(axis=1, initial=0.0) <= _LARGEST)
    unit[~(usable & has_unit_length(unit))] = np.nan
    return unit


def no_direction(rows: Vectors) -> Mask:
    """A boolean for each row of `unit_rows`: whether it has none."""
    return np.asarray(np.isnan(rows[:, 0]))


def has_unit_length(rows: Vectors) -> Mask:
    """A boolean for each of (N, D) vectors: whether it may be searched by its scalar product."""
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(np.einsum("nd,nd->n", rows, rows) - 1.0) < _KEPT)


def require_unit_length(rows: Vectors) -> None:
    """Check (N, D) vectors before they are kept. Raises ValueError: a mistake of this program, not of its caller."""
    if not has_unit_length(rows).all():
        raise ValueError("a vector that is to be kept is not of unit length; make it with `unit_rows`")
