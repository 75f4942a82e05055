"""The service: a bundle behind a REST API. It never imports torch, training or export.

Layers, top to bottom; each imports only what stands below it (tests/test_imports.py):

    cli            `pan-serve`
    api            the HTTP edge: app, middleware, authentication, parsing, routes, problems
    container      composition root: opens the parts in order and closes them in reverse
    workers        background jobs: retention, re-embedding, index maintenance
    galleries      use cases: catalogue, enrolment, search, entries, transfer
    auth           API keys, scopes, rate limits, the record of refused calls
    index          a gallery in memory: vectors, metadata columns, exact and approximate index
    inference      picture bytes to vectors: decode pool, embedder, explainer, engines
    batching       dynamic batcher, concurrency limiter, thread priorities
    storage        the record: database, migrations, a module per table, backup, check
    observability  metrics, tracing, Server-Timing, logging, health of background loops
    core           types, entry models, clock, errors, settings
"""

import os
import sys

# ONNX Runtime's wheels report their use to their maker unless this is set before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's wheel does so whenever it is imported, by means of a package that it works without: that one stays out.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
