"""The engine: uint8 crops in, unit vectors out, on the device that was asked for and no other.

B crops of H x W pixels become (B, D) float32. One engine is driven by one thread at a time.
"""

import logging

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle import Bundle, ImageArray, Precision
from service.errors import EngineFailed, StartupError
from service.settings import Device

Vectors = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

_PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """ONNX Runtime over the bundle's `onnx` file of one precision."""

    def __init__(
        self, bundle: Bundle, device: Device = "cpu", precision: Precision = "float32", threads: int = 0
    ) -> None:
        """Raises BundleFileError without such a file, StartupError where the device or the graph is not as asked."""
        entry, path = bundle.file("onnx", precision)
        self.device, self.precision = device, precision
        self.height, self.width = bundle.manifest.input.height, bundle.manifest.input.width
        self.dim = bundle.manifest.output.dim
        self._max_batch = entry.batch.max
        # On a GPU a new batch size is a new allocation that is never given back: run only a few fixed sizes.
        self._fixed_sizes = device == "cuda"

        provider = _PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise StartupError(
                f"--device {device} needs onnxruntime's {provider}, and this onnxruntime has "
                f"{', '.join(ort.get_available_providers())}; install 'pan-reid[gpu]' in an environment of its own"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin after a batch take the cores that decode the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = ort.InferenceSession(str(path), options, providers=[provider])
        if self._session.get_providers()[0] != provider:
            raise StartupError(
                f"--device {device} was asked for and onnxruntime fell back to {self._session.get_providers()[0]}; "
                "check the GPU driver and CUDA libraries, or start with --device cpu"
            )
        self._input, self._output = self._names()

    def _names(self) -> tuple[str, str]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        expected = ["tensor(uint8)", self.height, self.width, 3], ["tensor(float)", self.dim]
        found = [[node.type, *node.shape[1:]] for node in (*inputs, *outputs)]
        if found != list(expected):
            raise StartupError(
                f"the graph takes and gives {found}, the manifest says {list(expected)}; export it again"
            )
        return inputs[0].name, outputs[0].name

    def embed(self, crops: ImageArray) -> Vectors:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32 of unit length; a batch over the engine's limit is split.

        Raises EngineFailed when the engine does, or when it gives numbers that are not finite.
        """
        step = self._max_batch or len(crops)
        try:
            parts = [self._run(crops[start : start + step]) for start in range(0, len(crops), step)]
        except Exception as error:  # onnxruntime raises its own classes, all directly under Exception
            raise EngineFailed(
                f"the engine failed on a batch of {len(crops)} ({type(error).__name__}: {error})"
            ) from error
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(vectors).all():
            raise EngineFailed("the engine gave NaN or infinite numbers; check the bundle with `pan-export`")
        return vectors

    def _run(self, crops: ImageArray) -> Vectors:
        count = len(crops)
        if self._fixed_sizes:
            size = 1 << (count - 1).bit_length()
            size = min(size, self._max_batch or size)
            crops = np.concatenate([crops, np.zeros((size - count, *crops.shape[1:]), np.uint8)])
        vectors: Vectors = self._session.run([self._output], {self._input: crops})[0]
        return vectors[:count]
