"""pan-export: a checkpoint to engine files that agree with PyTorch, or to nothing."""

import os
import sys

# ONNX Runtime's wheels report their use to their maker unless this is set before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's wheel does so whenever it is imported, by means of a package that it works without: that one stays out.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
