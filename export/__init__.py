"""Export of checkpoints to bundles of engine files, each compared with PyTorch, and the command `pan-export`.

bundles/        checkpoint to bundle folder         onnx/      ONNX graphs
parity/         comparison with PyTorch, gates      tensorrt/  TensorRT engines
quantisation/   INT8                                batch/     many checkpoints from a plan
cli/            the command line

Imports `bundle` and `training`. Public: `export.bundles.export_checkpoint`, `export.tensorrt.export.export_tensorrt`,
`export.verification.verify_bundle`, and the names in `__all__` of the packages.
"""

import os
import sys

# ONNX Runtime's wheels report their use to their maker unless this is set before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's wheel does so whenever it is imported, by means of a package that it works without: that one stays out.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__: list[str] = []
