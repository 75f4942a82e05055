"""ONNX Runtime, on a CPU or on CUDA."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from bundle import ImageArray
from service.core.errors import StartupError
from service.core.types import Vectors
from service.inference.engine import Signature, padded_size

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRunner:
    """Runs an engine file of kind `onnx`."""

    def __init__(
        self,
        path: Path,
        signature: Signature,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int = 0,
        max_batch: int | None = None,
    ) -> None:
        """`threads` is the size of the thread pool; 0 leaves it to ONNX Runtime.

        Raises StartupError if the device is not available or the graph does not match the signature, and the errors of
        ONNX Runtime.
        """
        self.max_batch = max_batch
        # On a GPU each new batch size allocates memory that is never freed, so only a few sizes run.
        self._fixed_sizes = device == "cuda"
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin after a batch would occupy the cores that decode the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # By default CUDA computes float32 products in TF32, with a mantissa of 10 bits; float16 files offer that trade.
        exact = {"use_tf32": "0"} if device == "cuda" else {}
        self._session = ort.InferenceSession(str(path), options, providers=[(_PROVIDERS[device], exact)])
        if self._session.get_providers()[0] != _PROVIDERS[device]:
            raise StartupError(
                f"onnxruntime fell back from {device} to {self._session.get_providers()[0]}; "
                "check the GPU driver and the CUDA libraries, or start with --device cpu"
            )
        nodes = [*self._session.get_inputs(), *self._session.get_outputs()]
        signature.require([(_TYPES.get(node.type, node.type), node.shape[1:]) for node in nodes], path)
        self._input, self._output = (node.name for node in nodes)

    def run(self, crops: ImageArray) -> Vectors:
        """See Runner."""
        count = len(crops)
        if self._fixed_sizes:
            size = padded_size(count, most=self.max_batch)
            crops = np.concatenate([crops, np.zeros((size - count, *crops.shape[1:]), np.uint8)])
        vectors: Vectors = self._session.run([self._output], {self._input: crops})[0]
        return vectors[:count]

    def close(self) -> None:
        """See Runner. A session frees its memory when it is collected."""
        del self._session
