"""ONNX to TensorRT engines. TensorRT 10 and 11 and TensorRT-RTX share one Python API, so one code path drives them.

bundle --graph--> typed ONNX --network--> parsed network --build--> engine --runtime--> parity

`export_tensorrt` does all steps. Imports `export.bundles` and what it imports. Public: the names in `__all__`.
"""

from export.tensorrt.build import BuildSettings
from export.tensorrt.export import BuiltEngine, export_tensorrt

__all__ = ["BuildSettings", "BuiltEngine", "export_tensorrt"]
