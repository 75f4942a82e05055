"""The kind of index of a gallery, by its setting and size."""

from typing import Literal

from pan_reid.schemas import IndexKind

AnnKind = Literal["hnsw", "ivf_sq8", "ivf_pq"]

_MAX_EXACT_VALUES = 2**25  # rows x dimensions that one core compares in about 5 ms; exact search is fast up to here
_MIN_ANN_ROWS = 2048  # fewer rows neither train an approximate index nor need one


def choose_kind(setting: IndexKind, rows: int, dim: int) -> AnnKind | None:
    """The kind of approximate index for `rows` vectors of `dim` dimensions; None for exact search."""
    if setting == "flat" or rows < _MIN_ANN_ROWS:
        return None
    if setting == "auto":
        return "ivf_sq8" if rows * dim > _MAX_EXACT_VALUES else None
    return setting
