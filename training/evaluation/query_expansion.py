"""Query expansion: replaces a query by a weighted mean of itself and its nearest gallery rows.

Alpha-QE of Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation" (2018).
Shapes: Q queries, G gallery rows, D numbers of an embedding, B queries of a block, K neighbours.
"""

import numpy as np

from training.evaluation.blocks import spans
from training.evaluation.inputs import Floats, unit
from training.evaluation.neighbours import nearest

ALPHA = 3.0


def expand_queries(query_QD: Floats, gallery_GD: Floats, neighbours: int = 5, alpha: float = ALPHA) -> Floats:
    """q <- q + sum over the K nearest gallery rows g of max(0, q.g)^alpha g, brought to unit length; (Q, D).

    Rows must have unit length. Labels are not used: neighbours may be of any person and any camera.
    """
    expanded_QD = np.empty_like(query_QD)
    for rows in spans(len(query_QD), 12 * len(gallery_GD) + 8 * neighbours * gallery_GD.shape[1]):
        similarity_BG = query_QD[rows] @ gallery_GD.T
        index_BK = nearest(similarity_BG, neighbours)
        weight_BK = np.maximum(np.take_along_axis(similarity_BG, index_BK, 1), 0) ** alpha
        expanded_QD[rows] = query_QD[rows] + np.einsum("bk,bkd->bd", weight_BK, gallery_GD[index_BK])
    return unit(expanded_QD)
