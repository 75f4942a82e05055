"""pan-serve: a bundle behind a REST API: embeddings, galleries, enrolment and search. No torch."""

import os

# ONNX Runtime's wheels report their use to their maker unless this is set before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
