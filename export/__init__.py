"""pan-export: a checkpoint to engine files that agree with PyTorch, or to nothing."""

import os

# ONNX Runtime's wheels report their use to their maker unless this is set before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
