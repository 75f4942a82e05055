"""Selects the engine file to run: the best that the bundle holds, this machine can run and a parity check covers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bundle import RTX_CAPABILITIES, RTX_DEFAULT_CAPABILITIES, EngineFile, Kind, Precision, rtx_runs_on
from service.core.choices import Device, EngineChoice, PrecisionChoice
from service.core.errors import StartupError
from service.inference.engines.hardware import EngineName, Hardware, Target

# Best first. OpenVINO is last: only --engine openvino or --precision bfloat16 selects it.
_ORDER: tuple[Target, ...] = (
    ("tensorrt", "cuda"),
    ("tensorrt_rtx", "cuda"),
    ("onnxruntime", "cuda"),
    ("onnxruntime", "cpu"),
    ("openvino", "cpu"),
)
# Precisions of `auto`. int8 and bfloat16 cost some accuracy, so the operator must ask for them.
_AUTO_PRECISIONS: dict[str, tuple[Precision, ...]] = {"cuda": ("float16", "float32"), "cpu": ("float32",)}
_KINDS: dict[EngineName, Kind] = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """The engine file that runs, and the reason."""

    engine: EngineName
    device: Literal["cpu", "cuda"]
    file: EngineFile
    reason: str


def select_engine(
    files: Sequence[EngineFile],
    hardware: Hardware,
    *,
    engine: EngineChoice = "auto",
    device: Device = "auto",
    precision: PrecisionChoice = "auto",
    allow_unverified: bool = False,
) -> Selection:
    """The best file that fits the arguments. Raises StartupError with the reason for each engine if there is none."""
    files = [file for file in files if file.purpose == "embed"]
    targets = [target for target in _ORDER if engine in ("auto", target[0]) and device in ("auto", target[1])]
    rejected: list[str] = []  # targets whose files cannot run here
    absent: list[str] = []  # targets without a file in the bundle
    for runtime, processor in targets:
        precisions = _AUTO_PRECISIONS[processor] if precision == "auto" else (precision,)
        candidates = [file for p in precisions for file in files if (file.kind, file.precision) == (_KINDS[runtime], p)]
        obstacles = []
        for file in candidates:
            obstacle = (
                hardware.unavailable.get((runtime, processor))
                or _incompatible(runtime, file, hardware)
                or _unverified(file, allow_unverified)
            )
            if obstacle is None:
                return Selection(runtime, processor, file, _reason(runtime, processor, file, engine, rejected, absent))
            obstacles.append(obstacle)
        if obstacles:
            rejected.append(f"{runtime} on {processor} ({obstacles[0]})")
        else:
            absent.append(f"{runtime} on {processor}")

    asked = f"--engine {engine} --device {device} --precision {precision}"
    holds = ", ".join(file.label for file in files)
    if not targets:
        raise StartupError(f"{asked}: {engine} runs on {'cuda' if device == 'cpu' else 'cpu'} only")
    if not rejected:
        wanted = f"{'' if engine == 'auto' else _KINDS[engine] + ' '}{' or '.join(precisions)}"
        raise StartupError(f"the bundle has no {wanted} file; it holds {holds}; ask for one of them, or export it")
    raise StartupError(f"{asked} is not possible: {'; '.join(rejected)}. The bundle holds {holds}")


def _unverified(file: EngineFile, allowed: bool) -> str | None:
    if file.parity is not None or allowed:
        return None
    return (
        f"{file.name} is unverified: its parity with PyTorch was never measured; with --allow-unverified the service "
        "compares it with the bundle's float32 file at the first start on this machine"
    )


def _incompatible(runtime: EngineName, file: EngineFile, hardware: Hardware) -> str | None:
    if file.built_for is None or hardware.gpu is None:
        return None
    built, installed = file.built_for, hardware.versions[runtime]
    newer = built.version_compatible and _numbers(installed) >= _numbers(built.library_version)
    if installed != built.library_version and not newer:
        return _rebuild(file, f"{file.kind} {built.library_version}, and {installed} is installed")
    need, have = built.compute_capability, hardware.gpu.compute_capability
    if file.kind == "tensorrt_rtx":
        runs, wanted = have in rtx_runs_on(need), ", ".join(rtx_runs_on(need))
    elif built.hardware_compatibility == "ampere_plus":
        runs, wanted = _numbers(have) >= (8, 0), "8.0 and later"
    else:
        runs, wanted = need == have, str(need)
    return None if runs else _rebuild(file, f"compute capability {wanted}, and this GPU is {hardware.gpu}", have)


def _rebuild(file: EngineFile, why: str, capability: str | None = None) -> str:
    """The remedy. `capability` is that of this GPU, if the file does not fit it."""
    library: Kind = file.kind
    options = ""
    if library == "tensorrt_rtx" and capability is not None:
        if capability not in RTX_CAPABILITIES:
            library = "tensorrt"  # TensorRT-RTX does not support this GPU
        elif capability not in RTX_DEFAULT_CAPABILITIES:
            options = f" --compute-capability {capability}"
    command = f"pan-export tensorrt BUNDLE --library {library} --precision {file.precision}{options}"
    return f"{file.name} was built for {why}; build it again: `{command}`"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text))


def _reason(
    runtime: str, processor: str, file: EngineFile, asked: EngineChoice, rejected: Sequence[str], absent: Sequence[str]
) -> str:
    selected = f"{runtime} on {processor}, {file.precision}, " + (
        "selected by auto" if asked == "auto" else "as requested"
    )
    return "; ".join(
        [
            selected,
            *([f"rejected: {'; '.join(rejected)}"] if rejected else []),
            *([f"not in the bundle: {', '.join(absent)}"] if absent else []),
        ]
    )
