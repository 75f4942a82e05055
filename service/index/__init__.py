"""A gallery in memory. It imports nothing of SQL or HTTP.

gallery_index  one gallery: search, add, delete, under a read-write lock
segment        vectors, metadata and an index over the same rows
exact          every vector; scores are always computed here
ann            proposes rows of a large gallery, from a graph (hnsw) or inverted lists (ivf)
metadata       columns and filters
recall         measures what `ann` finds against `exact`
"""
