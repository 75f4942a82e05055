"""Threads and GPU replicas of exact search. test_gallery_index compares its results with brute force."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest

from service.index.exact import ExactIndex, limit_to_one_core
from service.index.metadata import Filter
from tests.support.galleries import OpenRig, clustered, recall_at_10


def test_a_thread_limited_to_one_core_stays_limited_in_searches_of_many_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.index.exact._CORES", 2)
    index, queries = ExactIndex(8), np.eye(6, 8, dtype=np.float32)
    index.add(queries)

    def threads() -> int:
        index.search(queries, 1, None)
        return faiss.omp_get_max_threads()

    with ThreadPoolExecutor(1, initializer=limit_to_one_core) as limited, ThreadPoolExecutor(1) as free:
        assert [limited.submit(threads).result(), free.submit(threads).result()] == [1, 2]


def test_gpu_replicas_answer_unfiltered_searches_and_hold_no_deleted_vector(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clones on the CPU replace the GPU functions of faiss. The test counts the searches of each replica."""

    class FakeGpuIndex:
        def __init__(self, original: Any) -> None:
            self._faiss = faiss.clone_index(original)
            self.queries = 0

        def search(self, queries: np.ndarray, count: int, params: Any = None) -> Any:
            assert getattr(params, "sel", None) is None
            self.queries += len(queries)
            return self._faiss.search(queries, count, params=params)

    replicas: list[FakeGpuIndex] = []

    def index_cpu_to_gpu(_resources: object, _device: int, original: Any) -> FakeGpuIndex:
        replicas.append(FakeGpuIndex(original))
        return replicas[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    queries, ids = clustered(30, seed=7), list[int]()
    for kind in ("flat", "ivf_sq8"):
        rig = open_rig(kind)
        rig.loaded.row = replace(rig.loaded.row, index_kind=kind)
        ids = ids or rig.enrol(clustered(2500))
        assert "copied to the GPU" in rig.maintain()
        before = replicas[-1].queries
        assert recall_at_10(rig, queries) >= 0.98
        assert replicas[-1].queries == before + 30
        assert recall_at_10(rig, queries, Filter(cameras=frozenset({"c3"})), among=ids[3::10]) >= 0.98
        assert replicas[-1].queries == before + (30 if kind == "flat" else 60)  # exact search with a filter: CPU
        rig.delete(ids[-1:])
        ids.pop()
        made, before = len(replicas), replicas[-1].queries
        assert recall_at_10(rig, queries) >= 0.98
        assert replicas[-1].queries == before
        rig.maintain()
        assert len(replicas) == made + 1
