"""TensorRT and TensorRT for RTX: one engine file, one stream, pinned buffers, a CUDA graph for each batch size.

The two libraries have the same Python interface, so `api` is either module. They differ in the CUDA graphs: with
TensorRT the application captures them; TensorRT-RTX compiles kernels for a shape at run time, so it captures them
itself. A cache on disk keeps its compiled kernels for the next start.
"""

import ctypes
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import BuiltFor, ImageArray
from service.core.errors import EngineFailed, StartupError
from service.core.types import Vectors
from service.inference.engine import Signature, padded_size
from service.inference.engines.cuda import CheckedCuda

log = logging.getLogger(__name__)


def batch_sizes(least: int, most: int) -> list[int]:
    """The batch sizes that run: powers of two within an optimisation profile, and its limits.

    A profile of 3 to 24 gives [3, 4, 8, 16, 24].
    """
    powers = (1 << bits for bits in range(most.bit_length()))
    return sorted({padded_size(power, least, most) for power in (*powers, most)})


@dataclass(slots=True)
class _Context:
    """The execution context of one batch size, and its CUDA graph if the application captures it."""

    context: Any
    graph: Any | None = None


class TensorRtRunner:
    """Runs an engine file of kind `tensorrt` or `tensorrt_rtx` on the first GPU."""

    def __init__(
        self, api: Any, cuda: CheckedCuda, path: Path, signature: Signature, built_for: BuiltFor, cache: Path
    ) -> None:
        """`cache` is the file for the compiled kernels of TensorRT-RTX.

        Raises StartupError if the file cannot be loaded or does not match the signature, and EngineFailed if CUDA
        fails.
        """
        self._cuda, self._cache = cuda, cache
        self._log = _capturing_logger(api)
        self._runtime = api.Runtime(self._log)
        # A version-compatible engine contains host code. The bundle checks its hash, so it is what was exported.
        self._runtime.engine_host_code_allowed = built_for.version_compatible
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise StartupError(
                f"{api.__name__} {api.__version__} does not load {path.name} ({self._log.pop_errors()}); build it "
                "here: `pan-export tensorrt BUNDLE`"
            )
        self._input, self._output = self._tensor_names(api, path, signature)
        least, _, most = (shape[0] for shape in self._engine.get_tensor_profile_shape(self._input, 0))
        self.max_batch: int = most
        self._sizes = batch_sizes(least, most)
        self._crop_shape, self._dim = (signature.height, signature.width, 3), signature.dim

        self._stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
        self._crops = _Buffer(cuda, (most, *self._crop_shape), np.uint8)
        self._vectors = _Buffer(cuda, (most, self._dim), np.float32)
        # Batches run one after another, so all contexts share one workspace.
        self._scratch_size = self._engine.device_memory_size_v2
        self._scratch = cuda.cudaMalloc(max(1, self._scratch_size))
        self._config, self._kernels = self._configuration(api)
        self._contexts = {size: self._prepare(size) for size in self._sizes}

    def run(self, crops: ImageArray) -> Vectors:
        """See Runner."""
        count = len(crops)
        size = next(size for size in self._sizes if size >= count)
        self._crops.host[:count] = crops
        self._crops.host[count:size] = 0
        prepared = self._contexts[size]
        if prepared.graph is None:
            self._enqueue(prepared.context, size)
        else:
            self._cuda.cudaGraphLaunch(prepared.graph, self._stream)
        self._cuda.cudaStreamSynchronize(self._stream)
        vectors: Vectors = self._vectors.host[:count].copy()
        return vectors

    def close(self) -> None:
        """See Runner."""
        if self._kernels is not None:
            self._save_kernels()
        for prepared in self._contexts.values():
            if prepared.graph is not None:
                self._cuda.cudaGraphExecDestroy(prepared.graph)
        # Contexts use the memory of the engine, and the engine that of the runtime: free them in this order.
        del self._contexts, self._config, self._kernels, self._engine, self._runtime
        self._cuda.cudaFree(self._scratch)
        for buffer in (self._crops, self._vectors):
            buffer.free()
        self._cuda.cudaStreamDestroy(self._stream)

    def _tensor_names(self, api: Any, path: Path, signature: Signature) -> tuple[str, str]:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        names.sort(key=lambda name: engine.get_tensor_mode(name) != api.TensorIOMode.INPUT)
        signature.require(
            [
                (np.dtype(api.nptype(engine.get_tensor_dtype(name))).name, list(engine.get_tensor_shape(name))[1:])
                for name in names
            ],
            path,
        )
        return names[0], names[1]

    def _configuration(self, api: Any) -> tuple[Any, Any | None]:
        """The configuration of contexts, and the kernel cache of TensorRT-RTX."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(api.ExecutionContextAllocationStrategy.USER_MANAGED)
        if not hasattr(api, "CudaGraphStrategy"):
            return config, None
        # By default the library runs the first batches of a size with generic kernels while it compiles specialised
        # ones. Their results differ from those that the parity check covers.
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        kernels = config.create_runtime_cache()
        if self._cache.is_file() and not kernels.deserialize(self._cache.read_bytes()):
            log.info("the kernel cache belongs to another driver or GPU; compiling again")
        config.set_runtime_cache(kernels)
        return config, kernels

    def _prepare(self, size: int) -> _Context:
        """A context for one batch size. A captured graph contains the state of its context, so sizes share none."""
        context = self._engine.create_execution_context(self._config)
        if context is None:
            raise EngineFailed(f"no execution context for batches of {size} ({self._log.pop_errors()})")
        context.set_device_memory(self._scratch, self._scratch_size)
        done = (
            context.set_input_shape(self._input, (size, *self._crop_shape))
            and context.set_tensor_address(self._input, self._crops.device)
            and context.set_tensor_address(self._output, self._vectors.device)
        )
        if not done:
            raise EngineFailed(f"batches of {size} do not fit the engine ({self._log.pop_errors()})")
        self._enqueue(context, size)  # the first run does work that must not be captured
        self._cuda.cudaStreamSynchronize(self._stream)
        if self._kernels is not None:
            return _Context(context)
        return _Context(context, self._capture(context, size))

    def _capture(self, context: Any, size: int) -> Any:
        cuda = self._cuda
        # Thread-local: calls of other threads to the GPU must not end the capture.
        cuda.cudaStreamBeginCapture(self._stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            self._enqueue(context, size)
        finally:
            graph = cuda.cudaStreamEndCapture(self._stream)
        try:
            return cuda.cudaGraphInstantiate(graph, 0)
        finally:
            cuda.cudaGraphDestroy(graph)

    def _enqueue(self, context: Any, size: int) -> None:
        """Queue the copy to the GPU, the execution and the copy back; during a capture they are recorded."""
        kinds = self._cuda.cudaMemcpyKind
        crops, vectors, copy = self._crops, self._vectors, self._cuda.cudaMemcpyAsync
        copy(crops.device, crops.address, crops.bytes_of(size), kinds.cudaMemcpyHostToDevice, self._stream)
        if not context.execute_async_v3(int(self._stream)):
            raise EngineFailed(f"TensorRT did not run a batch of {size} ({self._log.pop_errors()})")
        copy(vectors.address, vectors.device, vectors.bytes_of(size), kinds.cudaMemcpyDeviceToHost, self._stream)

    def _save_kernels(self) -> None:
        assert self._kernels is not None
        try:
            temporary = self._cache.with_suffix(".tmp")
            temporary.write_bytes(bytes(self._kernels.serialize()))
            temporary.replace(self._cache)
        except OSError as error:  # the next start only takes longer
            log.warning("the kernel cache cannot be written: %s", error)


class _Buffer:
    """Pinned host memory as a NumPy array, and a buffer of the same size on the GPU."""

    def __init__(self, cuda: CheckedCuda, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._cuda = cuda
        self._row = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        self.address: int = cuda.cudaMallocHost(shape[0] * self._row)
        self.device: int = cuda.cudaMalloc(shape[0] * self._row)
        memory = (ctypes.c_uint8 * (shape[0] * self._row)).from_address(self.address)
        self.host: npt.NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)

    def bytes_of(self, rows: int) -> int:
        """Size of the first `rows` rows, in bytes."""
        return rows * self._row

    def free(self) -> None:
        """Free both. The array must not be used afterwards."""
        self._cuda.cudaFree(self.device)
        self._cuda.cudaFreeHost(self.address)


def _capturing_logger(api: Any) -> Any:
    """TensorRT reports the cause of a failure in its log only. Captures its errors and logs its warnings."""

    class CapturingLogger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self._errors: list[str] = []

        def pop_errors(self) -> str:
            """The errors since the last call."""
            errors, self._errors = self._errors, []
            return "; ".join(errors) or "TensorRT gives no reason"

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR):
                self._errors.append(message)
            elif severity == api.ILogger.WARNING:
                log.warning(message)

    return CapturingLogger()
