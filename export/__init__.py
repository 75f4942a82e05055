"""Export of checkpoints to bundles of engine files, each compared with PyTorch, and the command `pan-export`.

From top to bottom; each package imports only those below it, and `bundle` and `training`:

cli/            the command line
batch/          many checkpoints from a plan
tensorrt/       TensorRT engines
bundles/        checkpoint to bundle folder
quantisation/   INT8
onnx/, parity/  ONNX graphs; comparison with PyTorch and gates

Public: `export.bundles.export_checkpoint`, `export.tensorrt.export_tensorrt`, `export.batch.run_batch`,
`export.verification.verify_bundle`, and the names in `__all__` of the packages.
"""

import os
import sys

# ONNX Runtime's wheels send telemetry unless this is set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's wheel sends telemetry at import through a package that it also works without: block that package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__: list[str] = []
