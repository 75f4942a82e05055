"""What stops a build, and its error message."""

import os
import signal
import time
from pathlib import Path

import pytest

from bundle import (
    BatchProfile,
)
from export.bundles.targets import MeasurementSettings
from export.errors import BuildError, ParityError
from export.parity.gates import DEFAULTS, Gates
from export.tensorrt.build import BuildSettings, parse_batch_profile, parse_engine_precision
from export.tensorrt.export import export_tensorrt
from tests.export.tensorrt.conftest import LOOSE, settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (BuildSettings(BatchProfile(min=1, opt=8, max=4)), "batch profile 1:8:4 does not rise; give MIN:OPT:MAX"),
        (settings("1:2:2147483647"), r"kMAX .* not self-consistent.*smaller maximum than 2147483647 in --batch"),
        (
            settings(workspace=1 << 20),
            r"(no tactics|OutOfMemory).* give more than --workspace 1 \(MiB\), or leave it out",
        ),
        (settings(version_compatible=True), "own version only; leave --version-compatible out"),
        (settings(hardware_compatibility="ampere_plus"), "leave --hardware-compatibility out"),
        (settings(compute_capability="9.9"), r"not build for compute capability 9\.9; it knows 7\.5, 8\.0, 8\.6, 8\.9"),
        (settings(compute_capability="7.5"), "for Turing .*FP32 GEMM is not supported"),
    ],
)
def test_impossible_settings_are_explained_and_leave_the_bundle_as_it_was(
    untouched: Path, given: BuildSettings, message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        export_tensorrt(untouched, "float32", given, measuring=LOOSE)


def test_a_graph_that_fails_its_gate_is_not_compiled(untouched: Path) -> None:
    strict = MeasurementSettings(images=4, calibration=8, gates={**DEFAULTS, "float16": Gates(1.0, 0.5, 100.0)})
    with pytest.raises(
        ParityError, match=r"float16 graph fails its gates in ONNX Runtime, so nothing was built: .* gate is"
    ):
        export_tensorrt(untouched, "float16", settings(), measuring=strict)


def test_int8_is_refused_if_the_engine_would_not_be_smaller(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.tensorrt.graph.RTX_KERNEL_BYTES", 1_000_000)
    with pytest.raises(BuildError, match=r"no residual block .* choose --precision float16"):
        export_tensorrt(untouched, "int8", settings(), measuring=LOOSE)


def test_ctrl_c_stops_a_build(untouched: Path) -> None:
    steps: list[str] = []

    def interrupt(step: str) -> None:
        steps.append(step)
        if sum(step.startswith("cloning") for step in steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # until the main thread receives it: the rest of this phase takes milliseconds

    # in the background of a shell, Ctrl-C is ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            export_tensorrt(untouched, "float32", settings(), measuring=LOOSE, step=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sum(step.startswith("cloning") for step in steps) < 5  # of some two hundred


@pytest.mark.parametrize("text", ["8", "1:8", "1:8:64:128", "1:x:8", "0:8:64", "-1:8:64", ""])
def test_an_invalid_batch_profile_is_explained(text: str) -> None:
    with pytest.raises(BuildError, match=r"is not MIN:OPT:MAX, three whole numbers from 1, such as 1:8:64"):
        parse_batch_profile(text)


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(BuildError, match=r"--precision: bfloat16 is unknown; did you mean float16\?"):
        parse_engine_precision("bf16")
