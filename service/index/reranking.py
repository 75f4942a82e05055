"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) of the nearest entries.

The N = 1 + K rows are the query and its K candidates. d(i, j) is the squared Euclidean distance divided by the largest
one in row i.

- N(i, k): i itself and its k nearest rows; R(i, k) = {j in N(i, k) : i in N(j, k)}.
- R*(i) = the union of R(i, k1) and of R(j, k1 / 2) for all j in R(i, k1) with |R(j, k1 / 2) and R(i, k1)| > 2/3
  |R(j, k1 / 2)|.
- V(i, j) = exp(-d(i, j)) for j in R*(i), else 0; each row divided by its sum, then averaged over N(i, k2 - 1).
- distance = (1 - lambda) Jaccard distance of V(query) and V(candidate) + lambda d(query, candidate).

For a gallery of at most K entries this equals the re-ranking of the whole gallery.

Shapes: D dimensions of a vector.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.types import Vectors


@dataclass(frozen=True, slots=True)
class Reranking:
    """The number of candidates, the neighbourhood sizes k1 and k2, and `share`: lambda, the weight of d."""

    candidates: int
    k1: int
    k2: int
    share: float


def k_reciprocal(cosine_K: Vectors, vector_KD: Vectors, settings: Reranking) -> npt.NDArray[np.float32]:
    """(K,) float32 distances in [0, 1] between the query and the candidates.

    cosine_K: (K,) float32 cosines of query and candidates. vector_KD: (K, D) float32 unit vectors of the candidates.
    """
    rows = 1 + len(cosine_K)
    similarity_NN = np.ones((rows, rows), np.float32)
    similarity_NN[0, 1:] = similarity_NN[1:, 0] = cosine_K
    similarity_NN[1:, 1:] = vector_KD @ vector_KD.T
    distance_NN = np.maximum(2 - 2 * similarity_NN, 0)
    distance_NN /= np.maximum(distance_NN.max(1, keepdims=True), np.finfo(np.float32).tiny)

    np.fill_diagonal(similarity_NN, np.inf)  # a row is its own nearest, even beside an identical one
    nearest_NN = np.argsort(-similarity_NN, axis=1, kind="stable")
    core_NN = _mutual(nearest_NN[:, : settings.k1 + 1])
    near_NN = _mutual(nearest_NN[:, : round(settings.k1 / 2) + 1])
    overlap_NN = core_NN @ near_NN.T
    joins_NN = core_NN * (3 * overlap_NN > 2 * near_NN.sum(1))
    expanded_NN = (core_NN + joins_NN @ near_NN) > 0

    weight_NN = np.where(expanded_NN, np.exp(-distance_NN), 0)
    weight_NN /= weight_NN.sum(1, keepdims=True)
    near = nearest_NN[:, : settings.k2].T
    weight_NN = sum((weight_NN[rows] for rows in near), np.zeros_like(weight_NN)) / len(near)

    # Rows of V sum to 1, so the sum of the maxima is 2 minus the sum of the minima.
    shared_K = np.minimum(weight_NN[0], weight_NN[1:]).sum(1)
    jaccard_K = 1 - shared_K / (2 - shared_K)
    return np.asarray((1 - settings.share) * jaccard_K + settings.share * distance_NN[0, 1:], np.float32)


def _mutual(nearest_NK: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(N, N) float32: 1 if each of the two rows is among the nearest of the other, else 0."""
    rows = len(nearest_NK)
    nearest_NN = np.zeros((rows, rows), np.float32)
    np.put_along_axis(nearest_NN, nearest_NK, 1, axis=1)
    return nearest_NN * nearest_NN.T
