"""Copies of indexes on a GPU, where faiss was built for one and finds one. They answer what needs no selector.

faiss takes no selector on a GPU, and one search at a time. What is overwritten in the original must not live on in a
copy, so the copy is given up then, and made again by who looks after the index.
"""

import threading
from typing import Any

import faiss

from service.core.types import Rows, Vectors

_DEEPEST = 2048  # hits that faiss gives on a GPU


def gpu_found() -> bool:
    """Whether faiss can use a GPU here."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class GpuReplica:
    """The first `rows` of an index, as they were when it was made."""

    def __init__(self, original: Any) -> None:
        """Raises RuntimeError where the GPU has no room for it."""
        self._resources = faiss.StandardGpuResources()
        self._faiss = faiss.index_cpu_to_gpu(self._resources, 0, original)
        self._one_at_a_time = threading.Lock()
        self.rows = int(original.ntotal)

    def serves(self, count: int) -> bool:
        """Whether it can give so many hits."""
        return count <= min(_DEEPEST, self.rows)

    def search(self, queries: Vectors, count: int, probes: int | None = None) -> tuple[Vectors, Rows]:
        """(Q, count) scores and rows for each of (Q, D) queries; `probes` lists are looked into where there are any."""
        params = None if probes is None else faiss.SearchParametersIVF(nprobe=probes)
        with self._one_at_a_time:
            scores, rows = self._faiss.search(queries, count, params=params)
        return scores, rows
