"""Re-ranking of the nearest entries by k-reciprocal neighbours (Zhong et al., CVPR 2017), among query and candidates.

Over N = 1 + K rows, the query and its K candidates, with d(i, j) the squared Euclidean distance divided by the largest
one in row i:

- N(i, k): i itself and its k nearest rows; R(i, k) = {j in N(i, k) : i in N(j, k)}.
- R*(i) = R(i, k1) joined by R(j, k1 / 2) of every j in R(i, k1) that shares more than two thirds of it with R(i, k1).
- V(i, j) = exp(-d(i, j)) over j in R*(i), each row divided by its sum; then averaged over i and its k2 - 1 nearest.
- distance = (1 - lambda) Jaccard distance of V(query) and V(candidate) + lambda d(query, candidate).

Where a gallery has at most K entries this is the re-ranking of the whole of it, for one query.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.types import Vectors


@dataclass(frozen=True, slots=True)
class Reranking:
    """How many candidates, the neighbourhoods k1 and k2, and lambda, the share of the plain distance."""

    candidates: int
    k1: int
    k2: int
    share: float


def k_reciprocal(cosine_K: Vectors, vector_KD: Vectors, how: Reranking) -> npt.NDArray[np.float32]:
    """The distance (K,), from 0 to 1, of each candidate from the query that has these cosines to them."""
    rows = 1 + len(cosine_K)
    similarity_NN = np.ones((rows, rows), np.float32)
    similarity_NN[0, 1:] = similarity_NN[1:, 0] = cosine_K
    similarity_NN[1:, 1:] = vector_KD @ vector_KD.T
    distance_NN = np.maximum(2 - 2 * similarity_NN, 0)
    distance_NN /= np.maximum(distance_NN.max(1, keepdims=True), np.finfo(np.float32).tiny)

    np.fill_diagonal(similarity_NN, np.inf)  # first also where another crop is the same to the last bit
    nearest_NN = np.argsort(-similarity_NN, axis=1, kind="stable")
    core_NN = _mutual(nearest_NN[:, : how.k1 + 1])
    near_NN = _mutual(nearest_NN[:, : round(how.k1 / 2) + 1])
    overlap_NN = core_NN @ near_NN.T
    joins_NN = core_NN * (3 * overlap_NN > 2 * near_NN.sum(1))
    expanded_NN = (core_NN + joins_NN @ near_NN) > 0

    weight_NN = np.where(expanded_NN, np.exp(-distance_NN), 0)
    weight_NN /= weight_NN.sum(1, keepdims=True)
    near = nearest_NN[:, : how.k2].T
    weight_NN = sum((weight_NN[rows] for rows in near), np.zeros_like(weight_NN)) / len(near)

    # rows of V sum to 1, so the sum of the greater ones is 2 less the sum of the smaller
    shared_K = np.minimum(weight_NN[0], weight_NN[1:]).sum(1)
    jaccard_K = 1 - shared_K / (2 - shared_K)
    return np.asarray((1 - how.share) * jaccard_K + how.share * distance_NN[0, 1:], np.float32)


def _mutual(nearest_NK: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """1 where each of two rows is among the nearest of the other, else 0; numbers, to multiply."""
    rows = len(nearest_NK)
    among_NN = np.zeros((rows, rows), np.float32)
    np.put_along_axis(among_NN, nearest_NK, 1, axis=1)
    return among_NN * among_NN.T
