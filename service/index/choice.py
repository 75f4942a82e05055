"""Which index a gallery gets by its size, where it is not told."""

from typing import Literal

from pan_reid.schemas import IndexKind

ApproximateKind = Literal["hnsw", "ivf_sq8", "ivf_pq"]

_QUICK = 2**25  # numbers that one core compares in some 5 ms: up to here exact search is quick enough
_FEWEST = 2048  # rows; fewer neither train an approximate index nor need one


def choose_kind(asked: IndexKind, rows: int, dim: int) -> ApproximateKind | None:
    """The approximate index for so many rows; None searches them exactly."""
    if asked == "flat" or rows < _FEWEST:
        return None
    if asked == "auto":
        return "ivf_sq8" if rows * dim > _QUICK else None
    return asked
