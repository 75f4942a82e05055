"""A gallery in memory: vectors, metadata columns, exact and approximate search. It knows nothing of SQL and HTTP.

`gallery_index` is the entry point: searches and changes of one gallery under a read-write lock. Its rows live in a
`segment`: `metadata` for filters, `exact` for vectors and scores, `ann` for candidates of a large gallery. `recall`
measures `ann` against `exact`, `choice` picks the kind of index, `reader` reads a segment while it changes,
`gpu` copies indexes to a GPU, `reranking` reorders hits.

May import: core.
"""

__all__ = [
    "ann",
    "attributes",
    "choice",
    "exact",
    "gallery_index",
    "gpu",
    "metadata",
    "reader",
    "recall",
    "reranking",
    "segment",
]
