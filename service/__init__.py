"""The REST API that embeds images with a bundle and searches galleries. Imports no torch, training or export.

Layers, top to bottom. Each imports only layers below it, and of those only the modules in their `__all__`;
tests/test_imports.py checks both.

    cli            `pan-serve`
    api            HTTP: app, middleware, authentication, parsing, routes, problem documents
    container      composition root: opens the parts in order and closes them in reverse
    workers        background jobs: retention, re-embedding, index maintenance
    galleries      use cases: catalogue, enrolment, search, entries, transfer
    auth           API keys, scopes, rate limits, the audit of refused calls
    index          a gallery in memory: vectors, metadata columns, exact and approximate index
    inference      encoded images to vectors: decode pool, embedder, explainer, engines
    batching       dynamic batcher, concurrency limiter, thread priorities
    storage        SQLite: database, migrations, a module per table, backup, check
    observability  metrics, tracing, Server-Timing, logging, health of background workers
    core           types, entry models, clock, errors, settings
"""

import os
import sys

# Disables the telemetry of ONNX Runtime. It must be set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Disables the telemetry of OpenVINO, which works without this package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
