"""From the bytes of pictures to unit vectors: decode pool, embedder, explainer; `engines` are the runtimes."""
