"""TensorRT, and TensorRT for RTX: one engine file, one stream, pinned buffers, a CUDA graph for each batch size.

The two libraries have one Python interface, so `api` is either module. They part in who captures the graphs: TensorRT
leaves it to the application. TensorRT-RTX compiles kernels for a shape while it runs, so it alone knows what to capture
and when; what it has compiled is kept in a cache that saves the next start that work.
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
    """The sizes that run: powers of two within an optimisation profile, and its limits. 3..24 -> [3, 4, 8, 16, 24]"""
    powers = (1 << bits for bits in range(most.bit_length()))
    return sorted({padded_size(power, least, most) for power in (*powers, most)})


@dataclass(slots=True)
class _Prepared:
    """What runs one batch size: a context that is set to it, and its graph where the application captures it."""

    context: Any
    graph: Any | None = None


class TensorRtRunner:
    """Runs a file of kind `tensorrt` or `tensorrt_rtx` on the first GPU."""

    def __init__(
        self, api: Any, cuda: CheckedCuda, path: Path, signature: Signature, built_for: BuiltFor, cache: Path
    ) -> None:
        """`cache` is where TensorRT-RTX keeps its compiled kernels.

        Raises StartupError where the file cannot be loaded or is not as the manifest says, and EngineFailed where
        CUDA fails.
        """
        self._cuda, self._cache = cuda, cache
        self._told = _logger(api)
        self._runtime = api.Runtime(self._told)
        # A version-compatible engine carries host code. Its hash is the manifest's, so it is what was exported.
        self._runtime.engine_host_code_allowed = built_for.version_compatible
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise StartupError(
                f"{api.__name__} {api.__version__} does not load {path.name} ({self._told.why()}); build it here: "
                "`pan-export tensorrt BUNDLE`"
            )
        self._input, self._output = self._names(api, path, signature)
        least, _, most = (shape[0] for shape in self._engine.get_tensor_profile_shape(self._input, 0))
        self.max_batch: int = most
        self._sizes = batch_sizes(least, most)
        self._crop_shape, self._dim = (signature.height, signature.width, 3), signature.dim

        self._stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
        self._crops = _Buffer(cuda, (most, *self._crop_shape), np.uint8)
        self._vectors = _Buffer(cuda, (most, self._dim), np.float32)
        # Batches run one after another, so all contexts work in the same memory.
        self._scratch_size = self._engine.device_memory_size_v2
        self._scratch = cuda.cudaMalloc(max(1, self._scratch_size))
        self._config, self._kernels = self._configuration(api)
        self._prepared = {size: self._prepare(size) for size in self._sizes}

    def run(self, crops: ImageArray) -> Vectors:
        """See Runner."""
        count = len(crops)
        size = next(size for size in self._sizes if size >= count)
        self._crops.host[:count] = crops
        self._crops.host[count:size] = 0
        prepared = self._prepared[size]
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
        for prepared in self._prepared.values():
            if prepared.graph is not None:
                self._cuda.cudaGraphExecDestroy(prepared.graph)
        # The contexts go before the engine, and it before the runtime: each works in the memory of the next.
        del self._prepared, self._config, self._kernels, self._engine, self._runtime
        self._cuda.cudaFree(self._scratch)
        for buffer in (self._crops, self._vectors):
            buffer.free()
        self._cuda.cudaStreamDestroy(self._stream)

    def _names(self, api: Any, path: Path, signature: Signature) -> tuple[str, str]:
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
        """How contexts are made, and the cache of compiled kernels where the library has one."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(api.ExecutionContextAllocationStrategy.USER_MANAGED)
        if not hasattr(api, "CudaGraphStrategy"):
            return config, None
        # Left alone, the library answers the first batches of a size by general kernels while it compiles special ones:
        # other numbers than those that were compared with PyTorch.
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        kernels = config.create_runtime_cache()
        if self._cache.is_file() and not kernels.deserialize(self._cache.read_bytes()):
            log.info("the compiled kernels are of another driver or GPU, and are compiled again")
        config.set_runtime_cache(kernels)
        return config, kernels

    def _prepare(self, size: int) -> _Prepared:
        """A context for one batch size. A captured graph holds its context's state, so no two sizes share one."""
        context = self._engine.create_execution_context(self._config)
        if context is None:
            raise EngineFailed(f"no execution context for batches of {size} ({self._told.why()})")
        context.set_device_memory(self._scratch, self._scratch_size)
        done = (
            context.set_input_shape(self._input, (size, *self._crop_shape))
            and context.set_tensor_address(self._input, self._crops.device)
            and context.set_tensor_address(self._output, self._vectors.device)
        )
        if not done:
            raise EngineFailed(f"batches of {size} do not fit the engine ({self._told.why()})")
        self._enqueue(context, size)  # the first run does what must not be part of a graph
        self._cuda.cudaStreamSynchronize(self._stream)
        if self._kernels is not None:
            return _Prepared(context)
        return _Prepared(context, self._capture(context, size))

    def _capture(self, context: Any, size: int) -> Any:
        cuda = self._cuda
        # Thread-local: what other threads do on the GPU meanwhile must not break the capture.
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
        """Copy in, compute, copy out: queued on the stream, or captured from it."""
        kinds = self._cuda.cudaMemcpyKind
        crops, vectors, copy = self._crops, self._vectors, self._cuda.cudaMemcpyAsync
        copy(crops.device, crops.address, crops.bytes_of(size), kinds.cudaMemcpyHostToDevice, self._stream)
        if not context.execute_async_v3(int(self._stream)):
            raise EngineFailed(f"TensorRT did not run a batch of {size} ({self._told.why()})")
        copy(vectors.address, vectors.device, vectors.bytes_of(size), kinds.cudaMemcpyDeviceToHost, self._stream)

    def _save_kernels(self) -> None:
        assert self._kernels is not None
        try:
            temporary = self._cache.with_suffix(".tmp")
            temporary.write_bytes(bytes(self._kernels.serialize()))
            temporary.replace(self._cache)
        except OSError as error:  # the next start takes longer, and that is all
            log.warning("the compiled kernels are not kept: %s", error)


class _Buffer:
    """Pinned memory of the host, as an array, with its twin on the GPU."""

    def __init__(self, cuda: CheckedCuda, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._cuda = cuda
        self._row = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        self.address: int = cuda.cudaMallocHost(shape[0] * self._row)
        self.device: int = cuda.cudaMalloc(shape[0] * self._row)
        memory = (ctypes.c_uint8 * (shape[0] * self._row)).from_address(self.address)
        self.host: npt.NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)

    def bytes_of(self, rows: int) -> int:
        """Size of the first rows."""
        return rows * self._row

    def free(self) -> None:
        """Give back both; the array must not be used afterwards."""
        self._cuda.cudaFree(self.device)
        self._cuda.cudaFreeHost(self.address)


def _logger(api: Any) -> Any:
    """TensorRT says why something failed in its log only: its errors are kept for ours, its warnings logged."""

    class Told(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self._errors: list[str] = []

        def why(self) -> str:
            """The errors since it was last asked."""
            errors, self._errors = self._errors, []
            return "; ".join(errors) or "it does not say why"

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR):
                self._errors.append(message)
            elif severity == api.ILogger.WARNING:
                log.warning(message)

    return Told()
