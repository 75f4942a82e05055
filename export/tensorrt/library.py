"""Finds the installed TensorRT library and collects its log instead of printing it."""

import functools
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from bundle import RTX_CAPABILITIES, Extra, pip_install
from export.errors import BuildError, EngineMissing

LibraryName = Literal["tensorrt", "tensorrt_rtx"]
EXTRAS: dict[LibraryName, Extra] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}

# without a GPU driver, a second error about the driver follows every error
_NO_DRIVER = re.compile(r"catchCudaError|ScopedCudaStream")
_LOCATION = re.compile(r"\[\w+\.cpp:[^\]]*\] ?|\.? +In [\w()]+ at /\S+?:\d+")


@dataclass(slots=True)
class LogCapture:
    """Warnings and errors that the library logged inside `Library.capture_log`."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def error_text(self) -> str:
        """The errors as one line."""
        return join_messages(self.errors) or "it logged no reason"


@dataclass(frozen=True, slots=True)
class Library:
    """`trt` is the imported module; its types are compiled and carry no annotations."""

    name: LibraryName
    trt: Any
    log: Any

    @property
    def version(self) -> str:
        """Such as `11.4.0.106`."""
        return str(self.trt.__version__)

    @property
    def title(self) -> str:
        """Such as `TensorRT 11.4.0.106`."""
        return f"{'TensorRT' if self.name == 'tensorrt' else 'TensorRT-RTX'} {self.version}"

    def create(self, what: Literal["Builder", "Runtime"]) -> Any:
        """A builder or runtime of the library. Raises BuildError if there is no usable driver."""
        try:
            return getattr(self.trt, what)(self.log)
        except TypeError as error:  # the bindings raise it for a null pointer
            raise BuildError(f"{self.title} does not start on this machine: {self.log.capture.error_text()}") from error

    @contextmanager
    def capture_log(self) -> Iterator[LogCapture]:
        """Collect the library's log inside the block, from all of its threads."""
        self.log.capture = capture = LogCapture()
        yield capture


def check_rtx_target(compute_capability: str) -> str:
    """Raise BuildError unless TensorRT-RTX compiles for this compute capability, which is returned."""
    if compute_capability not in RTX_CAPABILITIES:
        raise BuildError(
            f"TensorRT-RTX does not build for compute capability {compute_capability}; it knows "
            f"{', '.join(RTX_CAPABILITIES)}"
        )
    return compute_capability


def find_library(name: LibraryName | None = None) -> Library:
    """The library of a name; without one, TensorRT if it is installed, else TensorRT-RTX. Raises EngineMissing."""
    names: Sequence[LibraryName] = (name,) if name else ("tensorrt", "tensorrt_rtx")
    for candidate in names:
        if find_spec(candidate) is not None:
            return _load(candidate)
    installs = " or ".join(pip_install(EXTRAS[candidate]) for candidate in names)
    raise EngineMissing(f"{' and '.join(names)} cannot be found; run {installs}")


@functools.cache
def _load(name: LibraryName) -> Library:
    """Cached, because the library ignores a second logger in one process."""
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineMissing(
            f"{name} is installed but does not load ({error}); install it again: "
            f"{pip_install(EXTRAS[name], options='--force-reinstall')}"
        ) from error
    return Library(name, trt, _logger(trt))


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # the base class is only known at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.capture = LogCapture()

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.capture.errors.append(text)
            elif severity == trt.ILogger.WARNING:
                self.capture.warnings.append(text)

    return Log()


def join_messages(texts: Sequence[str]) -> str:
    """The messages as one line, without source locations, repetitions and follow-up errors of a missing driver."""
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    useful = [line for line in lines if not _NO_DRIVER.search(line)] or lines
    return "; ".join(dict.fromkeys(_LOCATION.sub("", line) for line in useful))
