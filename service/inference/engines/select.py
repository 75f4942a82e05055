"""Which engine file runs: what the bundle holds, this machine can run and somebody has verified, best first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bundle import RTX_CAPABILITIES, RTX_DEFAULT_CAPABILITIES, EngineFile, Kind, Precision, rtx_runs_on
from service.core.choices import Device, EngineChoice, PrecisionChoice
from service.core.errors import StartupError
from service.inference.engines.hardware import EngineName, Machine, Place

# Best first. OpenVINO comes last: it must be asked for, or asked for in its own bfloat16.
_ORDER: tuple[Place, ...] = (
    ("tensorrt", "cuda"),
    ("tensorrt_rtx", "cuda"),
    ("onnxruntime", "cuda"),
    ("onnxruntime", "cpu"),
    ("openvino", "cpu"),
)
# What `auto` may take. Eight bits and bfloat16 cost some accuracy, so they are the operator's decision.
_AUTO_PRECISIONS: dict[str, tuple[Precision, ...]] = {"cuda": ("float16", "float32"), "cpu": ("float32",)}
_KINDS: dict[EngineName, Kind] = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What runs, and why."""

    engine: EngineName
    device: Literal["cpu", "cuda"]
    file: EngineFile
    reason: str


def choose(
    files: Sequence[EngineFile],
    machine: Machine,
    *,
    engine: EngineChoice = "auto",
    device: Device = "auto",
    precision: PrecisionChoice = "auto",
    allow_unverified: bool = False,
) -> Selection:
    """The best of what was asked for. Raises StartupError that says for each engine why it was not."""
    files = [file for file in files if file.purpose == "embed"]
    places = [place for place in _ORDER if engine in ("auto", place[0]) and device in ("auto", place[1])]
    passed: list[str] = []  # what the bundle holds and cannot run here
    absent: list[str] = []  # what the bundle does not hold
    for name, where in places:
        precisions = _AUTO_PRECISIONS[where] if precision == "auto" else (precision,)
        candidates = [file for p in precisions for file in files if (file.kind, file.precision) == (_KINDS[name], p)]
        obstacles = []
        for file in candidates:
            obstacle = (
                machine.lacks.get((name, where))
                or _built_for_another(name, file, machine)
                or _unverified(file, allow_unverified)
            )
            if obstacle is None:
                return Selection(name, where, file, _reason(name, where, file, engine, passed, absent))
            obstacles.append(obstacle)
        if obstacles:
            passed.append(f"{name} on {where} ({obstacles[0]})")
        else:
            absent.append(f"{name} on {where}")

    asked = f"--engine {engine} --device {device} --precision {precision}"
    holds = ", ".join(file.label for file in files)
    if not places:
        raise StartupError(f"{asked}: {engine} runs on {'cuda' if device == 'cpu' else 'cpu'} only")
    if not passed:
        wanted = f"{'' if engine == 'auto' else _KINDS[engine] + ' '}{' or '.join(precisions)}"
        raise StartupError(f"the bundle has no {wanted} file; it holds {holds}; ask for one of them, or export it")
    raise StartupError(f"{asked} cannot be had: {'; '.join(passed)}. The bundle holds {holds}")


def _unverified(file: EngineFile, allowed: bool) -> str | None:
    if file.parity is not None or allowed:
        return None
    return (
        f"{file.name} is unverified, it never ran beside PyTorch; --allow-unverified compares it with the bundle's "
        "float32 file at the first start on this machine"
    )


def _built_for_another(name: EngineName, file: EngineFile, machine: Machine) -> str | None:
    if file.built_for is None or machine.gpu is None:
        return None
    built, installed = file.built_for, machine.versions[name]
    newer = built.version_compatible and _numbers(installed) >= _numbers(built.library_version)
    if installed != built.library_version and not newer:
        return _rebuild(file, f"{file.kind} {built.library_version}, and {installed} is installed")
    need, have = built.compute_capability, machine.gpu.compute_capability
    if file.kind == "tensorrt_rtx":
        runs, wanted = have in rtx_runs_on(need), ", ".join(rtx_runs_on(need))
    elif built.hardware_compatibility == "ampere_plus":
        runs, wanted = _numbers(have) >= (8, 0), "8.0 and later"
    else:
        runs, wanted = need == have, str(need)
    return None if runs else _rebuild(file, f"compute capability {wanted}, and this GPU is {machine.gpu}", have)


def _rebuild(file: EngineFile, why: str, capability: str | None = None) -> str:
    """`capability` is that of the GPU here, where it is what the file does not fit."""
    library: Kind = file.kind
    options = ""
    if library == "tensorrt_rtx" and capability is not None:
        if capability not in RTX_CAPABILITIES:
            library = "tensorrt"  # TensorRT-RTX builds for no such GPU
        elif capability not in RTX_DEFAULT_CAPABILITIES:
            options = f" --compute-capability {capability}"
    command = f"pan-export tensorrt BUNDLE --library {library} --precision {file.precision}{options}"
    return f"{file.name} was built for {why}; build one for it: `{command}`"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text))


def _reason(
    name: str, where: str, file: EngineFile, asked: EngineChoice, passed: Sequence[str], absent: Sequence[str]
) -> str:
    chosen = f"{name} on {where}, {file.precision}, " + ("chosen by auto" if asked == "auto" else "as asked for")
    return "; ".join(
        [
            chosen,
            *([f"passed over: {'; '.join(passed)}"] if passed else []),
            *([f"not in the bundle: {', '.join(absent)}"] if absent else []),
        ]
    )
