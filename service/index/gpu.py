"""Replicas of indexes on a GPU, if faiss is built for GPUs and finds one.

On a GPU faiss supports no selector and no concurrent searches. So a replica only answers searches without a filter. Its
owner drops it when rows of the original are overwritten, because deleted vectors must not remain in it.
"""

import threading
from typing import Any

import faiss

from service.core.types import Rows, Vectors

_MAX_HITS = 2048  # the limit of faiss on a GPU


def gpu_available() -> bool:
    """Whether faiss can use a GPU here."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class GpuReplica:
    """A copy of a faiss index, which had `rows` rows at that time."""

    def __init__(self, original: Any) -> None:
        """Raises RuntimeError if the GPU has too little memory."""
        self._resources = faiss.StandardGpuResources()
        self._faiss = faiss.index_cpu_to_gpu(self._resources, 0, original)
        self._lock = threading.Lock()
        self.rows = int(original.ntotal)

    def serves(self, count: int) -> bool:
        """Whether a search for `count` hits is possible."""
        return count <= min(_MAX_HITS, self.rows)

    def search(self, queries: Vectors, count: int, nprobe: int | None = None) -> tuple[Vectors, Rows]:
        """(Q, count) float32 scores and int64 rows for (Q, D) float32 queries; `nprobe` is for inverted lists."""
        params = None if nprobe is None else faiss.SearchParametersIVF(nprobe=nprobe)
        with self._lock:
            scores, rows = self._faiss.search(queries, count, params=params)
        return scores, rows
