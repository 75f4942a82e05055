"""Builds an engine from a parsed network, with progress; Ctrl-C stops the build."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bundle import BatchProfile, InputSpec, Precision
from export.errors import BuildError
from export.onnx.graph import INPUT
from export.tensorrt import timing_cache
from export.tensorrt.library import Library, check_rtx_target
from export.tensorrt.network import ParsedNetwork
from training.callbacks import StepCallback
from training.config import parse_precision

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Options of a build; call `validate` before the build."""

    batch: BatchProfile
    workspace: int | None = None  # bytes; None: all memory of the device
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    compute_capability: str | None = None  # TensorRT-RTX, such as "8.9"; None: all default targets

    def validate(self, library: Library) -> None:
        """Raise BuildError for options that the library would ignore, or reject after a long build."""
        _check_rising(self.batch)
        if library.name == "tensorrt":
            if self.compute_capability is not None:
                raise BuildError(
                    "TensorRT builds for the GPU of this machine; leave --compute-capability out, or choose more GPUs "
                    "with --hardware-compatibility"
                )
        elif self.version_compatible:
            raise BuildError("TensorRT-RTX engines run in their own version only; leave --version-compatible out")
        elif self.hardware_compatibility != "none":
            raise BuildError(
                "a TensorRT-RTX engine runs on every RTX card it was compiled for; leave --hardware-compatibility out, "
                "or name one target by --compute-capability"
            )
        elif self.compute_capability is not None:
            check_rtx_target(self.compute_capability)


def parse_engine_precision(text: str) -> Precision:
    """`fp16` -> `float16`. Raises BuildError."""
    try:
        return parse_precision(text, PRECISIONS)
    except ValueError as error:
        raise BuildError(f"--precision: {error}") from None


def parse_batch_profile(text: str) -> BatchProfile:
    """`1:8:64` -> the profile. Raises BuildError unless it is three rising whole numbers from 1."""
    try:
        low, opt, high = (int(word) for word in text.split(":"))
        profile = BatchProfile(min=low, opt=opt, max=high)
    except ValueError:  # pydantic's error is one
        raise BuildError(f"{text!r} is not MIN:OPT:MAX, three whole numbers from 1, such as 1:8:64") from None
    _check_rising(profile)
    return profile


def _check_rising(batch: BatchProfile) -> None:
    if batch.opt is None or batch.max is None or not batch.min <= batch.opt <= batch.max:
        raise BuildError(
            f"the batch profile {batch.min}:{batch.opt}:{batch.max} does not rise; give MIN:OPT:MAX, such as 1:8:64"
        )


def build(
    library: Library,
    parsed: ParsedNetwork,
    spec: InputSpec,
    settings: BuildSettings,
    timings: Path,
    step: StepCallback = lambda _: None,
) -> bytes:
    """Compile the engine, which takes minutes for a large network. `timings` is the timing cache to use and update.

    Raises BuildError with the reason that the library gives.
    """
    monitor = _monitor(library.trt, step)
    with library.capture_log() as log, ThreadPoolExecutor(1, "tensorrt-build") as thread:
        config = _configure(library, parsed, spec, settings)
        config.progress_monitor = monitor
        if library.name == "tensorrt":  # TensorRT-RTX does not time kernels during the build
            timing_cache.load(config, timings)
        # build in another thread, so that the main thread can receive Ctrl-C
        future = thread.submit(parsed.builder.build_serialized_network, parsed.network, config)
        try:
            serialised = future.result()
        except BaseException:
            monitor.stopped = True
            raise
        if library.name == "tensorrt" and serialised is not None:
            timing_cache.save(config, timings)
    inconsistent = [text for text in log.warnings if "not self-consistent" in text]
    if serialised is None or inconsistent:
        raise BuildError(_explain(library, settings, log.error_text() if serialised is None else inconsistent[0]))
    return bytes(serialised)


def _configure(library: Library, parsed: ParsedNetwork, spec: InputSpec, settings: BuildSettings) -> Any:
    trt, batch = library.trt, settings.batch
    config = parsed.builder.create_builder_config()
    # no TF32: by default the library rounds the factors of products to ten bits
    config.clear_flag(trt.BuilderFlag.TF32)
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility != "none":
        level = getattr(trt.HardwareCompatibilityLevel, settings.hardware_compatibility.upper())
        config.hardware_compatibility_level = level
    if settings.compute_capability is not None:
        config.num_compute_capabilities = 1
        known = trt.ComputeCapability.__members__  # SM89 is 8.9
        config.set_compute_capability(known[f"SM{settings.compute_capability.replace('.', '')}"], 0)
    profile = parsed.builder.create_optimization_profile()
    shapes = [(size, spec.height, spec.width, 3) for size in (batch.min, batch.opt, batch.max)]
    profile.set_shape(INPUT, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"{library.title} does not accept the batch sizes {batch.min}:{batch.opt}:{batch.max}")
    return config


def _explain(library: Library, settings: BuildSettings, reason: str) -> str:
    advice = ""
    if settings.workspace is not None and ("workspace" in reason or "OutOfMemory" in reason):
        advice = f"; give more than --workspace {settings.workspace >> 20} (MiB), or leave it out"
    elif "not self-consistent" in reason:
        advice = f"; give a smaller maximum than {settings.batch.max} in --batch"
    return f"{library.title} cannot build the engine: {reason}{advice}"


def _monitor(trt: Any, step: StepCallback) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as in library.py
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            step(_lower_first(phase))

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

        def step_complete(self, phase: str, number: int) -> bool:
            """Return False to stop the build."""
            step(f"{_lower_first(phase)}, {number + 1} of {self.steps.get(phase, number + 1)}")
            return not self.stopped

    return Monitor()


def _lower_first(phase: str) -> str:
    return phase[:1].lower() + phase[1:]
