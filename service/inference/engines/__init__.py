"""The runtimes that execute a bundle's engine files: ONNX Runtime, OpenVINO, TensorRT.

`loader` loads the engine that `select` picks for the `hardware`. `parity_check` verifies an engine that was never run.
"""

__all__ = ["loader"]
