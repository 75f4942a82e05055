"""Background jobs, each of which reports its health to readiness and metrics.

retention                                erases expired entries
reembedding, reembedding_steps           brings galleries to the loaded model
index_maintenance, index_builder,
index_snapshots                          trains, measures and saves approximate indexes

May import: galleries, index, inference, batching, storage, observability, core.
"""

__all__ = ["index_maintenance", "reembedding", "retention"]
