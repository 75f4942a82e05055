"""Encoded images to unit vectors.

`embedder` runs decode pool, batcher and engine for concurrent requests; `explainer` computes part masks. `crop` cuts
boxes from a frame, `crop_encoding` encodes crops for storage. `engines` holds the runtimes behind `engine`.

May import: batching, observability, core.
"""

__all__ = ["embedder", "engines", "explainer"]
