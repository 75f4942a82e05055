"""What this machine can run, found without loading any engine file."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import onnxruntime as ort

from bundle import Extra, pip_install
from service.core.errors import EngineFailed
from service.inference.engines.cuda import cuda_runtime

EngineName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"]
Place = tuple[EngineName, Literal["cpu", "cuda"]]

_TENSORRT: dict[EngineName, Extra] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}  # with the extra of each


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU that CUDA lists; CUDA_VISIBLE_DEVICES decides which that is."""

    name: str
    compute_capability: str  # such as "8.9"

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


@dataclass(frozen=True, slots=True)
class Machine:
    """Runtimes and GPU. `lacks` says for each engine and device that cannot run here why, and what to do about it."""

    versions: Mapping[EngineName, str]
    gpu: Gpu | None = None
    lacks: Mapping[Place, str] = field(default_factory=dict)


def this_machine() -> Machine:
    """Look at the installed packages and at the driver."""
    versions: dict[EngineName, str] = {"onnxruntime": ort.__version__}
    lacks: dict[Place, str] = {}
    try:
        versions["openvino"] = version("openvino")
    except PackageNotFoundError:
        lacks["openvino", "cpu"] = f"openvino is not installed; run {pip_install('openvino')}"

    gpu, no_gpu = _find_gpu()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        lacks["onnxruntime", "cuda"] = (
            f"onnxruntime {ort.__version__} has no CUDAExecutionProvider; in an environment of its own "
            f"run {pip_install('gpu')}"
        )
    elif gpu is None:
        lacks["onnxruntime", "cuda"] = no_gpu
    for name, extra in _TENSORRT.items():
        try:
            versions[name] = importlib.import_module(name).__version__
        except (ImportError, OSError) as error:  # the package, or a library that it loads
            lacks[name, "cuda"] = f"{name} cannot be imported ({error}); run {pip_install(extra)}"
        else:
            if gpu is None:
                lacks[name, "cuda"] = no_gpu
    return Machine(versions, gpu, lacks)


def _find_gpu() -> tuple[Gpu | None, str]:
    """The GPU, or why there is none."""
    try:
        cuda: Any = cuda_runtime()
        properties = cuda.cudaGetDeviceProperties(0)
    except ImportError as error:
        return (
            None,
            f"the GPU cannot be looked for ({error}); run {pip_install('gpu')}, or tensorrt or rtx in its place",
        )
    except EngineFailed as error:
        return None, (
            f"CUDA finds no GPU ({error}); install the NVIDIA driver, or start the container with the NVIDIA "
            "container toolkit and --gpus 1"
        )
    return Gpu(properties.name.decode().rstrip("\0"), f"{properties.major}.{properties.minor}"), ""
