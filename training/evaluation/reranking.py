"""Re-ranking by k-reciprocal neighbours (Zhong et al., CVPR 2017), exact, without a matrix of all rows by all rows.

Over the N = Q + G rows of query and gallery together, with d(i, j) the squared Euclidean distance divided by the
largest one in row i:

- N(i, k): i itself and its k nearest rows. The authors' code counts the probe in, so it takes k + 1; so does this.
- R(i, k) = {j in N(i, k) : i in N(j, k)}, the k-reciprocal neighbours.
- R*(i) = R(i, k1) joined by R(j, k1 / 2) of every j in R(i, k1) that shares more than two thirds of it with R(i, k1).
- V(i, j) = exp(-d(i, j)) over j in R*(i), each row divided by its sum; then averaged over i and its k2 - 1 nearest.
- Jaccard distance of i and j = 1 - sum min(V(i), V(j)) / sum max(V(i), V(j)).
- final distance = (1 - lambda) Jaccard + lambda d.

What is stored: k1 + 1 neighbours a row, and V as a sparse matrix of some hundred numbers a row.
Shapes: N rows, B of them in a block, K = k1 + 1 neighbours, H = k1 / 2 + 1 neighbours, D numbers of an embedding.
"""

import numpy as np
from scipy.sparse import csc_array, csr_array

from training.evaluation.blocks import Similarity, spans
from training.evaluation.inputs import Bools, Floats, Ints
from training.evaluation.neighbours import nearest

K1, K2, LAMBDA = 20, 6, 0.3  # the paper's, for Market-1501


def rerank(
    query_QD: Floats, gallery_GD: Floats, k1: int = K1, k2: int = K2, lambda_value: float = LAMBDA
) -> Similarity:
    """Similarity 1 - final distance, for `evaluate_similarity`; a block of queries at a time.

    Rows must have unit length and contain no junk, because every row affects the neighbourhoods of the others. Labels
    are not used.
    """
    row_ND = np.concatenate([query_QD, gallery_GD])
    queries = len(query_QD)
    neighbour_NK, farthest_N = _neighbours(row_ND, max(k1 + 1, k2))
    own, other = _expanded(neighbour_NK[:, : k1 + 1], neighbour_NK[:, : round(k1 / 2) + 1])
    weight_NN = _average(_weights(row_ND, own, other, farthest_N), neighbour_NK[:, :k2])
    inverted_GN = csc_array(weight_NN[queries:])

    def similarity(rows: slice) -> Floats:
        distance_BG = _distance(query_QD[rows] @ gallery_GD.T) / farthest_N[:queries][rows, None]
        shared_BG = np.stack([_shared(weight_NN, inverted_GN, query) for query in range(*rows.indices(queries))])
        # rows of V sum to 1, so the sum of the greater ones is 2 less the sum of the smaller
        jaccard_BG = 1 - shared_BG / (2 - shared_BG)
        return np.asarray(1 - (1 - lambda_value) * jaccard_BG - lambda_value * distance_BG, np.float32)

    return similarity


def _neighbours(row_ND: Floats, count: int) -> tuple[Ints, Floats]:
    """Each row's nearest rows, itself first (N, K), and the squared distance to its farthest (N,)."""
    neighbours, farthest = [], []
    for rows in spans(len(row_ND), 12 * len(row_ND)):
        similarity_BN = row_ND[rows] @ row_ND.T
        farthest.append(_distance(similarity_BN.min(1)))
        own = np.arange(rows.start, rows.stop)
        similarity_BN[own - rows.start, own] = np.inf  # first also where another crop is the same to the last bit
        neighbours.append(nearest(similarity_BN, count))
    return np.concatenate(neighbours), np.maximum(np.concatenate(farthest), np.finfo(np.float32).tiny)


def _expanded(neighbour_NK: Ints, near_NH: Ints) -> tuple[Ints, Ints]:
    """The pairs (i, j) with j in R*(i), by i and then j: two arrays of one length."""
    count, width = neighbour_NK.shape
    mutual_NK, mutual_NH = _reciprocal(neighbour_NK), _reciprocal(near_NH)
    size_N = mutual_NH.sum(1)
    pairs = []
    for rows in spans(count, 8 * width * width * near_NH.shape[1]):
        neighbour_BK, mutual_BK = neighbour_NK[rows], mutual_NK[rows]
        candidate_BKH, member_BKH = near_NH[neighbour_BK], mutual_NH[neighbour_BK]
        core_BK = np.where(mutual_BK, neighbour_BK, -1)
        overlap_BK = (member_BKH & (candidate_BKH[..., None] == core_BK[:, None, None, :]).any(3)).sum(2)
        joined_BKH = member_BKH & (mutual_BK & (3 * overlap_BK > 2 * size_N[neighbour_BK]))[..., None]
        # i * N + j: one number a pair, so that doubles fall together
        own_B1 = np.arange(rows.start, rows.stop)[:, None] * count
        core, joined = (own_B1 + neighbour_BK)[mutual_BK], (own_B1[..., None] + candidate_BKH)[joined_BKH]
        pairs.append(np.unique(np.concatenate([core, joined])))
    own, other = np.divmod(np.concatenate(pairs), count)
    return own, other


def _weights(row_ND: Floats, own: Ints, other: Ints, farthest_N: Floats) -> csr_array:
    """V before the averaging."""
    distance = np.empty(len(own), np.float32)
    for pairs in spans(len(own), 8 * row_ND.shape[1]):
        distance[pairs] = _distance(np.einsum("pd,pd->p", row_ND[own[pairs]], row_ND[other[pairs]]))
    weight = np.exp(-distance / farthest_N[own])
    count = len(row_ND)
    total_N = np.bincount(own, weight, minlength=count)
    return csr_array((weight / total_N[own], (own, other)), shape=(count, count), dtype=np.float32)


def _reciprocal(neighbour_NK: Ints) -> Bools:
    """Which of a row's neighbours have the row among theirs, (N, K)."""
    found = np.empty(neighbour_NK.shape, np.bool_)
    for rows in spans(len(neighbour_NK), 16 * neighbour_NK.shape[1] ** 2):
        own_B11 = np.arange(rows.start, rows.stop)[:, None, None]
        found[rows] = (neighbour_NK[neighbour_NK[rows]] == own_B11).any(2)
    return found


def _average(weight_NN: csr_array, nearest_NK: Ints) -> csr_array:
    """Each row of V by the mean of its nearest rows' (local query expansion)."""
    rows, count = nearest_NK.shape
    mean_NN = csr_array(
        (np.full(rows * count, 1 / count, np.float32), nearest_NK.ravel(), np.arange(0, rows * count + 1, count)),
        shape=(rows, rows),
    )
    return mean_NN @ weight_NN


def _shared(weight_NN: csr_array, inverted_GN: csc_array, query: int) -> Floats:
    """Sum over j of min(V(query, j), V(g, j)) for every gallery row g, (G,); only where both have weight."""
    own = slice(weight_NN.indptr[query], weight_NN.indptr[query + 1])
    column, weight = weight_NN.indices[own], weight_NN.data[own]
    first = inverted_GN.indptr[column]
    length = inverted_GN.indptr[column + 1] - first
    entry = np.arange(length.sum()) + np.repeat(first - np.cumsum(length) + length, length)
    smaller = np.minimum(inverted_GN.data[entry], np.repeat(weight, length))
    return np.asarray(np.bincount(inverted_GN.indices[entry], smaller, inverted_GN.shape[0]), np.float32)


def _distance(similarity: Floats) -> Floats:
    """Squared Euclidean distance of unit rows, from their cosine."""
    return np.maximum(2 - 2 * similarity, 0)
