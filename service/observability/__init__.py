"""What operators see: Prometheus metrics, OpenTelemetry traces, Server-Timing, JSON logs, health of loops."""
