"""L2 normalisation of vectors, and the check of stored ones. The service has no other place for either."""

import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Vectors

# A norm below the smallest normal float32 has lost digits; no float32 exceeds the largest.
_MIN_NORM, _MAX_ABS = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_ROUNDING = 1e-5  # a norm this close to 1 is rounding, and the vector stays bitwise equal
_TOLERANCE = 1e-2  # of the squared norm: earlier releases stored the output of float16 and int8 engines

CANNOT_NORMALIZE = "it is zero, not finite, or its values are too small or too large for float32"


def normalize_rows(values: npt.NDArray[np.floating]) -> Vectors:
    """Scale each row of (N, D) values to unit length: x / ||x||. A row without a direction becomes NaN.

    Computes in float64, because a square in float32 overflows above 1.8e19 and vanishes below 1e-23.
    """
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        unit: Vectors = (wide / norms[:, None]).astype(np.float32)
        exact = np.abs(norms - 1.0) <= _ROUNDING
        unit[exact] = values[exact]
        usable = (norms >= _MIN_NORM) & (np.abs(wide).max(axis=1, initial=0.0) <= _MAX_ABS)
    unit[~(usable & has_unit_length(unit))] = np.nan
    return unit


def is_undefined(rows: Vectors) -> Mask:
    """(N,) mask of the rows that `normalize_rows` could not scale."""
    return np.asarray(np.isnan(rows[:, 0]))


def has_unit_length(rows: Vectors) -> Mask:
    """(N,) mask of the (N, D) vectors whose dot products are cosine similarities."""
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(np.einsum("nd,nd->n", rows, rows) - 1.0) < _TOLERANCE)


def require_unit_length(rows: Vectors) -> None:
    """Check (N, D) vectors before they are stored. Raises ValueError, which is a bug in this program."""
    if not has_unit_length(rows).all():
        raise ValueError("a vector to be stored is not of unit length; call `normalize_rows` first")
