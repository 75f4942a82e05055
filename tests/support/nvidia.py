"""Fakes of CUDA and TensorRT: device memory is host memory, and an engine computes the model of the test bundle.

They have the functions that `service.inference.engines.tensorrt` calls, with the names of the real packages; a test
compares the names. `Cuda.calls` records the calls in order.
"""

# ruff: noqa: N802, ARG002 (names and arguments are NVIDIA's)

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.bundles import DIM, HEIGHT, WIDTH, reference_embedding

CROP = HEIGHT * WIDTH * 3


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class Cuda:
    """`cuda.bindings.runtime`: every call returns an error code and its values."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    cudaStreamCaptureMode = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.held: dict[int, Any] = {}  # address -> everything that must be freed
        self.fails: str | None = None
        self._graphs: dict[int, list[Any]] = {}
        self._recording: list[Any] | None = None

    def enqueue(self, what: str, work: Any) -> None:
        """Run work of a stream, or record it during the capture of a graph."""
        if self._recording is not None:
            self._recording.append(work)
        else:
            self.calls.append(what)
            work()

    def _hold(self, what: Any) -> int:
        address = ctypes.addressof(what)
        self.held[address] = what
        return address

    def _allocate(self, name: str, size: int) -> tuple[Error, int | None]:
        if self.fails == name:
            return Error.cudaErrorMemoryAllocation, None
        return Error.cudaSuccess, self._hold((ctypes.c_uint8 * size)())

    def cudaGetErrorString(self, code: Error) -> tuple[Error, bytes]:
        return Error.cudaSuccess, {2: b"out of memory", 900: b"operation not permitted when stream is capturing"}[code]

    def cudaGetDeviceProperties(self, device: int) -> tuple[Error, SimpleNamespace]:
        return Error.cudaSuccess, SimpleNamespace(name=b"NVIDIA L4\0\0", major=8, minor=9)

    def cudaMalloc(self, size: int) -> tuple[Error, int | None]:
        return self._allocate("cudaMalloc", size)

    def cudaMallocHost(self, size: int) -> tuple[Error, int | None]:
        return self._allocate("cudaMallocHost", size)

    def cudaFree(self, address: int) -> tuple[Error]:
        del self.held[address]
        return (Error.cudaSuccess,)

    cudaFreeHost = cudaFree
    cudaStreamDestroy = cudaFree
    cudaGraphDestroy = cudaFree
    cudaGraphExecDestroy = cudaFree

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int]:
        assert flags == self.cudaStreamNonBlocking
        return Error.cudaSuccess, self._hold(ctypes.c_int())

    def cudaMemcpyAsync(self, to: int, start: int, size: int, kind: Any, stream: int) -> tuple[Error]:
        assert stream in self.held
        self.enqueue(f"copy {'in' if kind == 1 else 'out'}", lambda: ctypes.memmove(to, start, size))
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        if self._recording is not None:
            return (Error.cudaErrorStreamCaptureUnsupported,)
        return (Error.cudaErrorMemoryAllocation if self.fails == "cudaStreamSynchronize" else Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Error]:
        self._recording = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, int]:
        graph = self._hold(ctypes.c_int())
        self._graphs[graph], self._recording = self._recording or [], None
        self.calls.append("capture")
        return Error.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Error, int]:
        executable = self._hold(ctypes.c_int())
        self._graphs[executable] = self._graphs[graph]
        return Error.cudaSuccess, executable

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Error]:
        self.calls.append(f"launch of {len(self._graphs[graph])}")
        for work in self._graphs[graph]:
            work()
        return (Error.cudaSuccess,)


class Context:
    """`IExecutionContext`"""

    def __init__(self, engine: "Engine") -> None:
        self._engine, self._addresses = engine, dict[str, int]()
        self._batch, self._memory = 0, 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert (memory in self._engine.cuda.held, size) == (True, self._engine.device_memory_size_v2)
        self._memory = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._batch = shape[0]
        least, most = self._engine.profile
        return shape[1:] == (HEIGHT, WIDTH, 3) and least <= shape[0] <= most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in ("images", "descriptor")

    def execute_async_v3(self, stream: int) -> bool:
        assert self._memory
        if self._engine.fails:
            self._engine.logger.log("ERROR", "the kernel did not launch")
            return False

        def compute() -> None:
            crops = np.frombuffer(ctypes.string_at(self._addresses["images"], self._batch * CROP), np.uint8)
            vectors = reference_embedding(crops.reshape(self._batch, HEIGHT, WIDTH, 3)).astype(np.float32)
            ctypes.memmove(self._addresses["descriptor"], vectors.tobytes(), vectors.nbytes)

        self._engine.cuda.enqueue(f"run {self._batch}", compute)
        return True


class Cache:
    """`IRuntimeCache`"""

    def __init__(self) -> None:
        self.blob = b"kernels"

    def serialize(self) -> bytes:
        return self.blob

    def deserialize(self, blob: bytes) -> bool:
        known, self.blob = blob.startswith(b"kernels"), blob
        return known


class Config:
    """`IRuntimeConfig`"""

    def __init__(self) -> None:
        self.cuda_graph_strategy: Any = None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self.cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        assert strategy == "USER_MANAGED"

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Engine:
    """`ICudaEngine`"""

    num_io_tensors = 2
    device_memory_size_v2 = 1 << 10

    def __init__(self, cuda: Cuda, profile: tuple[int, int], logger: Any) -> None:
        self.cuda, self.profile, self.logger, self.fails = cuda, profile, logger, False
        self.config: Config | None = None

    def get_tensor_name(self, index: int) -> str:
        return ("descriptor", "images")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "images" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "UINT8" if name == "images" else "FLOAT"

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1, HEIGHT, WIDTH, 3] if name == "images" else [-1, DIM]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        assert (name, profile) == ("images", 0)
        least, most = self.profile
        return [[size, HEIGHT, WIDTH, 3] for size in (least, most, most)]

    def create_runtime_config(self) -> Config:
        self.config = Config()
        return self.config

    def create_execution_context(self, config: Config) -> Context:
        assert config is self.config
        return Context(self)


def library(cuda: Cuda, profile: tuple[int, int], *, captures_itself: bool) -> Any:
    """The module `tensorrt`, or `tensorrt_rtx` if it captures its graphs itself."""

    class Logger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = "INTERNAL_ERROR", "ERROR", "WARNING", "INFO"

        def __init__(self) -> None: ...

    class Runtime:
        """`Runtime`"""

        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialised: bytes) -> Engine | None:
            if serialised != b"engine":
                self._logger.log("ERROR", "magicTag mismatch")
                return None
            module.engine = Engine(cuda, profile, self._logger)
            return module.engine

    module = SimpleNamespace(
        __name__="tensorrt_rtx" if captures_itself else "tensorrt",
        __version__="1",
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="INPUT"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        nptype={"UINT8": np.uint8, "FLOAT": np.float32}.__getitem__,
        engine=None,
    )
    if captures_itself:
        module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE")
        module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER")
    return module
