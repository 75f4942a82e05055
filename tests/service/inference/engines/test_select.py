"""Selection of an engine file: the order, the reason, and the remedies in the errors."""

from dataclasses import replace
from typing import Any

import pytest

from bundle import BuiltFor, EngineFile, Parity
from service.core.errors import StartupError
from service.inference.engines.hardware import Gpu, Hardware
from service.inference.engines.select import select_engine

PARITY = Parity(data="none", images=1, batch_sizes=(1,), cosine_min=1, cosine_mean=1, gate_cosine_min=0.99)
L4 = Gpu("NVIDIA L4", "8.9")
NO_GPU = "CUDA finds no GPU"
CPU = Hardware(
    {"onnxruntime": "1.32.0", "openvino": "2026.4.1"},
    unavailable={
        ("onnxruntime", "cuda"): "no CUDAExecutionProvider",
        ("tensorrt", "cuda"): "tensorrt cannot be imported; pip install ./client '.[tensorrt]'",
        ("tensorrt_rtx", "cuda"): NO_GPU,
    },
)
GPU = Hardware({"onnxruntime": "1.32.0", "openvino": "2026.4.1", "tensorrt": "11.4.0", "tensorrt_rtx": "1.7.1"}, L4)
NO_OPENVINO = replace(CPU, unavailable={**CPU.unavailable, ("openvino", "cpu"): "openvino is not installed"})


def entry(label: str, **members: Any) -> EngineFile:
    kind, precision = label.split()
    if kind.startswith("tensorrt") and "built_for" not in members:
        members["built_for"] = BuiltFor(library_version=GPU.versions[kind], compute_capability="8.9")  # type: ignore[index]
    data = {"name": f"{kind}.{precision}", "bytes": 1, "sha256": "0" * 64, "parity": PARITY, **members}
    return EngineFile(kind=kind, precision=precision, **data)  # type: ignore[arg-type]


ONNX, ONNX_FP16, ONNX_INT8 = entry("onnx float32"), entry("onnx float16"), entry("onnx int8")
OPENVINO, OPENVINO_BF16 = entry("openvino float32"), entry("openvino bfloat16")
TRT, RTX = entry("tensorrt float16"), entry("tensorrt_rtx float16")
UNVERIFIED = entry("tensorrt float16", parity=None)
T4_ENGINE = entry("tensorrt float16", built_for=BuiltFor(library_version="11.4.0", compute_capability="7.5"))
AMPERE_PLUS = BuiltFor(library_version="11.4.0", compute_capability="8.0", hardware_compatibility="ampere_plus")
OLD_VERSION = entry("tensorrt float16", built_for=BuiltFor(library_version="10.16.1", compute_capability="8.9"))
RTX_ALL_GPUS = entry("tensorrt_rtx float16", built_for=BuiltFor(library_version="1.7.1"))
VERSION_COMPATIBLE = BuiltFor(library_version="11.2.0", compute_capability="8.9", version_compatible=True)


@pytest.mark.parametrize(
    ("files", "hardware", "arguments", "selected"),
    [
        ([ONNX], CPU, {}, "onnxruntime cpu float32"),
        ([ONNX, ONNX_FP16, ONNX_INT8, OPENVINO, OPENVINO_BF16, TRT], CPU, {}, "onnxruntime cpu float32"),
        ([ONNX, ONNX_INT8], CPU, {"precision": "int8"}, "onnxruntime cpu int8"),
        ([ONNX, OPENVINO, OPENVINO_BF16], CPU, {"precision": "bfloat16"}, "openvino cpu bfloat16"),
        ([ONNX, OPENVINO], CPU, {"engine": "openvino"}, "openvino cpu float32"),
        ([ONNX, ONNX_FP16, TRT, RTX], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, ONNX_FP16, RTX], GPU, {}, "tensorrt_rtx cuda float16"),
        ([ONNX, RTX_ALL_GPUS], GPU, {}, "tensorrt_rtx cuda float16"),
        ([ONNX, RTX_ALL_GPUS], replace(GPU, gpu=Gpu("Tesla T4", "7.5")), {}, "onnxruntime cuda float32"),
        ([ONNX, RTX_ALL_GPUS], replace(GPU, gpu=Gpu("NVIDIA H100", "9.0")), {}, "onnxruntime cuda float32"),
        ([ONNX, RTX_ALL_GPUS], replace(GPU, gpu=Gpu("Jetson AGX Orin", "8.7")), {}, "onnxruntime cuda float32"),
        ([ONNX, ONNX_FP16], GPU, {}, "onnxruntime cuda float16"),
        ([ONNX, ONNX_INT8], GPU, {}, "onnxruntime cuda float32"),
        ([ONNX, ONNX_FP16, TRT], GPU, {"device": "cpu"}, "onnxruntime cpu float32"),
        ([ONNX, ONNX_FP16, TRT], GPU, {"precision": "float32"}, "onnxruntime cuda float32"),
        ([ONNX, ONNX_FP16, UNVERIFIED], GPU, {}, "onnxruntime cuda float16"),
        ([ONNX, ONNX_FP16, UNVERIFIED], GPU, {"allow_unverified": True}, "tensorrt cuda float16"),
        ([ONNX, T4_ENGINE], GPU, {}, "onnxruntime cuda float32"),
        ([ONNX, T4_ENGINE, TRT], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, OLD_VERSION], GPU, {}, "onnxruntime cuda float32"),
        ([ONNX, entry("tensorrt float16", built_for=AMPERE_PLUS)], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, entry("tensorrt float16", built_for=VERSION_COMPATIBLE)], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, entry("tensorrt float32", purpose="explain")], GPU, {}, "onnxruntime cuda float32"),
    ],
)
def test_the_best_verified_file_that_runs_here_is_selected(
    files: list[EngineFile], hardware: Hardware, arguments: dict[str, Any], selected: str
) -> None:
    selection = select_engine(files, hardware, **arguments)
    assert f"{selection.engine} {selection.device} {selection.file.precision}" == selected
    assert selection.file in files


def test_the_reason_names_rejected_and_absent_engines() -> None:
    assert (
        select_engine([ONNX], CPU, engine="onnxruntime", device="cpu").reason
        == "onnxruntime on cpu, float32, as requested"
    )
    reason = select_engine([ONNX, TRT, RTX], CPU).reason
    assert reason.startswith(
        "onnxruntime on cpu, float32, selected by auto; rejected: tensorrt on cuda (tensorrt cannot"
    )
    assert "tensorrt_rtx on cuda (CUDA finds no GPU)" in reason
    assert "onnxruntime on cuda (no CUDAExecutionProvider)" in reason
    assert "openvino" not in reason  # it is behind the selected engine in the order
    bare = select_engine([ONNX], GPU, device="cuda").reason
    assert (
        bare
        == "onnxruntime on cuda, float32, selected by auto; not in the bundle: tensorrt on cuda, tensorrt_rtx on cuda"
    )


@pytest.mark.parametrize(
    ("files", "hardware", "arguments", "message"),
    [
        ([ONNX], CPU, {"precision": "int8"}, "the bundle has no int8 file; it holds onnx float32"),
        ([ONNX], CPU, {"engine": "openvino"}, "the bundle has no openvino float32 file"),
        ([ONNX, OPENVINO], NO_OPENVINO, {"engine": "openvino"}, "openvino is not installed"),
        ([ONNX], CPU, {"device": "cuda"}, "onnxruntime on cuda (no CUDAExecutionProvider)"),
        ([ONNX, TRT], CPU, {"engine": "tensorrt"}, "pip install ./client '.[tensorrt]'"),
        ([ONNX, RTX], CPU, {"engine": "tensorrt_rtx"}, NO_GPU),
        ([ONNX, OPENVINO], GPU, {"engine": "openvino", "device": "cuda"}, "openvino runs on cpu only"),
        ([ONNX, TRT], GPU, {"engine": "tensorrt", "device": "cpu"}, "tensorrt runs on cuda only"),
        ([ONNX, UNVERIFIED], GPU, {"engine": "tensorrt"}, "--allow-unverified"),
        (
            [ONNX, T4_ENGINE],
            GPU,
            {"engine": "tensorrt"},
            "compute capability 7.5, and this GPU is NVIDIA L4 (compute capability 8.9); build it again: "
            "`pan-export tensorrt BUNDLE --library tensorrt --precision float16`",
        ),
        (
            [ONNX, RTX_ALL_GPUS],
            replace(GPU, gpu=Gpu("NVIDIA H100", "9.0")),
            {"engine": "tensorrt_rtx"},
            "compute capability 8.0, 8.6, 8.9, 12.0, 12.1, and this GPU is NVIDIA H100 (compute capability 9.0); build "
            "it again: `pan-export tensorrt BUNDLE --library tensorrt --precision float16`",
        ),
        (
            [ONNX, RTX_ALL_GPUS],
            replace(GPU, gpu=Gpu("Tesla T4", "7.5")),
            {"engine": "tensorrt_rtx"},
            "`pan-export tensorrt BUNDLE --library tensorrt_rtx --precision float16 --compute-capability 7.5`",
        ),
        ([ONNX, OLD_VERSION], GPU, {"engine": "tensorrt"}, "tensorrt 10.16.1, and 11.4.0 is installed; build it again"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_the_remedy(
    files: list[EngineFile], hardware: Hardware, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartupError) as refused:
        select_engine(files, hardware, **arguments)
    assert message in str(refused.value)
