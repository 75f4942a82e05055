"""Prometheus metrics, OpenTelemetry traces, Server-Timing, JSON logs, and the health of background loops.

May import: core.
"""

__all__ = ["logging", "metrics", "server_timing", "tracing", "worker"]
