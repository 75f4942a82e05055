"""OpenVINO on the CPU.

By default OpenVINO runs a float32 graph in bfloat16 if the CPU supports it, and it replaces a precision that the CPU
lacks. So the precision is always set and read back, and the service does not start with another one.
"""

from pathlib import Path
from typing import Any

from bundle import ImageArray, Precision
from service.core.errors import StartupError
from service.core.types import Vectors
from service.inference.engine import Signature

# precision -> the capability that the CPU needs, and the inference precision of everything but Q/DQ nodes
_REQUIREMENTS: dict[Precision, tuple[str, str]] = {
    "float32": ("FP32", "f32"),
    "float16": ("FP16", "f16"),
    "bfloat16": ("BF16", "bf16"),
    "int8": ("INT8", "f32"),
}
_TYPES = {"u8": "uint8", "f32": "float32"}


class OpenVinoRunner:
    """Runs an engine file of kind `openvino`: an ONNX graph, in the precision of its manifest entry."""

    def __init__(
        self, path: Path, signature: Signature, precision: Precision, threads: int = 0, max_batch: int | None = None
    ) -> None:
        """`threads` is the number of threads; 0 leaves it to OpenVINO.

        Raises StartupError if the CPU lacks the precision or the graph does not match the signature, and the errors of
        OpenVINO.
        """
        import openvino

        self.max_batch = max_batch
        capability, hint = _REQUIREMENTS[precision]
        core = openvino.Core()
        capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if capability not in capable:
            raise StartupError(
                f"this CPU does not compute in {precision}; openvino supports {', '.join(capable)} here; "
                "start with another --precision"
            )
        model = core.read_model(path)
        nodes = [*model.inputs, *model.outputs]
        signature.require([_type_and_shape(node) for node in nodes], path)
        # One stream: the batcher runs one batch at a time, and all threads work on it.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(model, "CPU", options)
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != hint:
            raise StartupError(f"openvino computes in {actual} instead of {hint}; start with another --precision")
        self._request = compiled.create_infer_request()

    def run(self, crops: ImageArray) -> Vectors:
        """See Runner."""
        vectors: Vectors = self._request.infer([crops])[0]
        return vectors

    def close(self) -> None:
        """See Runner. A request frees its memory when it is collected."""
        del self._request


def _type_and_shape(node: Any) -> tuple[str, list[int]]:
    dtype = node.element_type.get_type_name()
    shape = list(node.partial_shape)[1:]
    return _TYPES.get(dtype, dtype), [size.get_length() if size.is_static else -1 for size in shape]
