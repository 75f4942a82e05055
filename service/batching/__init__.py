"""Dynamic batching in front of the engine.

batcher          collects items of concurrent requests and runs them as one batch
limiter          bounds the work in progress; refuses what exceeds it
thread_priority  niceness and CPU affinity of computing threads

It may import `observability` and `core`.
"""

__all__ = ["batcher", "limiter", "thread_priority"]
