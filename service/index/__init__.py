"""The vector index: rows numbered from 0 in, best rows out. It knows nothing of entries, people or deletion.

`flat` holds every vector and is exact. For a gallery that is too large for that, `approximate` proposes rows from a
graph (`hnsw`) or from inverted lists (`ivf`), and `flat` scores what was proposed.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ApproximateKind = Literal["hnsw", "ivf_sq8", "ivf_pq"]
IndexKind = Literal["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq"]

_QUICK = 2**25  # numbers that one core compares in some 5 ms: up to here exact search is quick enough
_FEWEST = 2048  # rows; fewer neither train an approximate index nor need one


def choose_kind(asked: IndexKind, rows: int, dim: int) -> ApproximateKind | None:
    """The approximate index for so many rows; None searches them exactly."""
    if asked == "flat" or rows < _FEWEST:
        return None
    if asked == "auto":
        return "ivf_sq8" if rows * dim > _QUICK else None
    return asked
