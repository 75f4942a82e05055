"""Dynamic batching in front of the engine.

`batcher` runs items of concurrent requests as one batch, `limiter` refuses work over a limit, and `thread_priority`
sets niceness and CPU affinity of computing threads.

May import: observability, core.
"""

__all__ = ["batcher", "limiter", "thread_priority"]
