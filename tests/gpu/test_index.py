"""Index replicas on a GPU find what the CPU finds."""

import numpy as np
import pytest

from service.index.ann import AnnIndex
from service.index.exact import ExactIndex
from service.index.gpu import gpu_available

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpu_available(), reason="needs faiss-gpu (extra [gpu]) and a GPU"),
]

DIM, ROWS = 64, 20_000


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_exact_search_on_a_gpu_equals_exact_search_on_a_cpu() -> None:
    vectors, queries = unit(0, ROWS), unit(1, 20)
    index = ExactIndex(DIM)
    index.add(vectors[:-100])
    assert index.copy_to_gpu(0)
    index.add(vectors[-100:])  # not in the replica, so the CPU searches them
    scores, rows = index.search(queries, 10, None)
    expected = np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(queries @ vectors.T, rows, axis=1), expected, atol=1e-4)


def test_inverted_lists_on_a_gpu_propose_the_rows_that_they_propose_on_a_cpu() -> None:
    vectors, queries = unit(0, ROWS), unit(1, 20)
    index = AnnIndex.train("ivf_sq8", vectors, np.eye(DIM, dtype=np.float32), ROWS, ROWS)
    index.prepare(np.arange(ROWS), vectors)()
    every_list, none = index.search_params[-1], np.empty(0, np.int64)
    on_cpu = index.propose(queries, 10, every_list, ROWS, none)
    assert index.copy_to_gpu()
    on_gpu = index.propose(queries, 10, every_list, ROWS, none)
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        assert len(np.intersect1d(cpu[:40], gpu)) >= 39
