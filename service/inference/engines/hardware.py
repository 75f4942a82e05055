"""The runtimes and the GPU of this machine. Looking for them loads no engine file."""

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
Target = tuple[EngineName, Literal["cpu", "cuda"]]  # a runtime and its device

_TENSORRT: dict[EngineName, Extra] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}  # the extra that installs it


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU in the order of CUDA_VISIBLE_DEVICES."""

    name: str
    compute_capability: str  # such as "8.9"

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


@dataclass(frozen=True, slots=True)
class Hardware:
    """Versions of the installed runtimes, the GPU, and for each target that cannot run here the reason and remedy."""

    versions: Mapping[EngineName, str]
    gpu: Gpu | None = None
    unavailable: Mapping[Target, str] = field(default_factory=dict)


def detect_hardware() -> Hardware:
    """Inspect the installed packages and the GPU driver."""
    versions: dict[EngineName, str] = {"onnxruntime": ort.__version__}
    unavailable: dict[Target, str] = {}
    try:
        versions["openvino"] = version("openvino")
    except PackageNotFoundError:
        unavailable["openvino", "cpu"] = f"openvino is not installed; run {pip_install('openvino')}"

    gpu, no_gpu = _find_gpu()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        unavailable["onnxruntime", "cuda"] = (
            f"onnxruntime {ort.__version__} has no CUDAExecutionProvider; in a separate environment "
            f"run {pip_install('gpu')}"
        )
    elif gpu is None:
        unavailable["onnxruntime", "cuda"] = no_gpu
    for name, extra in _TENSORRT.items():
        try:
            versions[name] = importlib.import_module(name).__version__
        except (ImportError, OSError) as error:  # of the package, or of a library that it loads
            unavailable[name, "cuda"] = f"{name} cannot be imported ({error}); run {pip_install(extra)}"
        else:
            if gpu is None:
                unavailable[name, "cuda"] = no_gpu
    return Hardware(versions, gpu, unavailable)


def _find_gpu() -> tuple[Gpu | None, str]:
    """The GPU, or None with the reason."""
    try:
        cuda: Any = cuda_runtime()
        properties = cuda.cudaGetDeviceProperties(0)
    except ImportError as error:
        return (
            None,
            f"cuda-bindings cannot be imported ({error}); run {pip_install('gpu')}, or tensorrt or rtx in its place",
        )
    except EngineFailed as error:
        return None, (
            f"CUDA finds no GPU ({error}); install the NVIDIA driver, or start the container with the NVIDIA "
            "container toolkit and --gpus 1"
        )
    return Gpu(properties.name.decode().rstrip("\0"), f"{properties.major}.{properties.minor}"), ""
