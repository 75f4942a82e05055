"""OpenVINO on the CPU. It takes the precision that was asked for, or the service does not start.

OpenVINO runs a float32 graph in bfloat16 where the CPU has it unless told not to, and in another precision than asked
for where the CPU lacks it: so the precision is always set, and read back.
"""

from pathlib import Path
from typing import Any

from bundle import ImageArray, Precision
from service.core.errors import StartupError
from service.core.types import Vectors
from service.inference.engine import Signature

# precision -> what the CPU must be capable of, and the type that everything but Q/DQ nodes computes in
_NEEDS: dict[Precision, tuple[str, str]] = {
    "float32": ("FP32", "f32"),
    "float16": ("FP16", "f16"),
    "bfloat16": ("BF16", "bf16"),
    "int8": ("INT8", "f32"),
}
_TYPES = {"u8": "uint8", "f32": "float32"}


class OpenVinoRunner:
    """Runs a file of kind `openvino`: an ONNX graph, in the precision of its manifest entry."""

    def __init__(
        self, path: Path, signature: Signature, precision: Precision, threads: int = 0, max_batch: int | None = None
    ) -> None:
        """Raises StartupError where precision or graph are not as asked; what OpenVINO raises otherwise."""
        import openvino

        self.max_batch = max_batch
        capability, hint = _NEEDS[precision]
        core = openvino.Core()
        capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if capability not in capable:
            raise StartupError(
                f"this CPU does not compute in {precision}, so openvino cannot (it can: {', '.join(capable)}); "
                "start with another --precision"
            )
        model = core.read_model(path)
        nodes = [*model.inputs, *model.outputs]
        signature.require([_described(node) for node in nodes], path)
        # One stream: the micro-batcher gives one batch at a time, and all threads are to work on it.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(model, "CPU", options)
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if taken != hint:
            raise StartupError(f"openvino was to compute in {hint} and takes {taken}; start with another --precision")
        self._request = compiled.create_infer_request()

    def run(self, crops: ImageArray) -> Vectors:
        """See Runner."""
        vectors: Vectors = self._request.infer([crops])[0]
        return vectors

    def close(self) -> None:
        """See Runner; a request gives back its memory when nothing refers to it."""
        del self._request


def _described(node: Any) -> tuple[str, list[int]]:
    dtype = node.element_type.get_type_name()
    shape = list(node.partial_shape)[1:]
    return _TYPES.get(dtype, dtype), [size.get_length() if size.is_static else -1 for size in shape]
