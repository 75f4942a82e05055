"""On a machine with a GPU, the engine is measured on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from bundle import (
    RTX_CAPABILITIES,
    load_bundle,
)
from export.errors import BuildError, ParityError
from export.tensorrt.export import export_tensorrt
from export.tensorrt.library import Library
from export.tensorrt.runtime import Gpu, cannot_run_reason, engine_embedder
from tests.export.conftest import Traced
from tests.export.tensorrt.conftest import LOOSE, outputs, settings


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, pan_c: Traced) -> Iterator[list[int]]:
    """A simulated GPU, which computes in ONNX Runtime -> the sizes of the batches that ran on it, 2 to 4."""
    sizes: list[int] = []

    def embed(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return outputs(pan_c.model, images)

    monkeypatch.setattr("export.tensorrt.export.find_gpu", lambda: Gpu("NVIDIA L4", "8.9"))
    monkeypatch.setattr("export.tensorrt.export.engine_embedder", lambda *_: embed)
    yield sizes
    assert not sizes or (min(sizes) >= 2 and max(sizes) <= 4)


def test_with_a_gpu_the_engine_is_measured_on_it(bundle: Path, gpu: list[int]) -> None:
    built = export_tensorrt(bundle, "float32", settings("2:2:4"), measuring=LOOSE)
    entry, _ = load_bundle(bundle).file("tensorrt_rtx", "float32")
    assert gpu
    assert built.unverified is None
    assert entry.parity is not None
    assert entry.parity.batch_sizes == (2, 4)
    assert entry.parity.cosine_min > 0.99999
    assert entry.built_for is not None
    assert entry.built_for.gpu is None  # it was compiled for every card


def test_an_engine_for_another_gpu_stays_unverified(bundle: Path, gpu: list[int]) -> None:
    built = export_tensorrt(bundle, "float32", settings(compute_capability="12.0"), measuring=LOOSE)
    assert built.entry.parity is None
    assert built.unverified == "it is built for compute capability 12.0, the NVIDIA L4 here has 8.9"
    assert gpu == []


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_fails_its_gate_is_not_added(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def upside_down(*_: object) -> Callable[[np.ndarray], np.ndarray]:
        return lambda images: outputs(onnx.load(untouched / "model.float32.onnx"), images[:, ::-1].copy())

    monkeypatch.setattr("export.tensorrt.export.engine_embedder", upside_down)
    with pytest.raises(ParityError, match="the engine differs"):
        export_tensorrt(untouched, "float32", settings(), measuring=LOOSE)


def test_the_reason_for_a_gpu_without_support_names_its_compute_capability(rtx: Library) -> None:
    names = [name for name in rtx.trt.ComputeCapability.__members__ if name.startswith("SM")]
    assert [f"SM{capability.replace('.', '')}" for capability in RTX_CAPABILITIES] == names
    for capability in ("9.0", "10.0", "8.7", "7.5"):
        why = cannot_run_reason(rtx, Gpu("card", capability), None)
        assert why == (f"it is built for compute capability 8.0, 8.6, 8.9, 12.0, 12.1, the card here has {capability}")
    assert cannot_run_reason(rtx, Gpu("card", "12.1"), None) is None
    assert cannot_run_reason(rtx, Gpu("card", "7.5"), "7.5") is None


def test_an_engine_is_measured_with_eagerly_specialised_kernels(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine loads without a driver, so a stub records how the context is created."""
    asked: list[Any] = []
    engine = SimpleNamespace(create_runtime_config=SimpleNamespace, create_execution_context=asked.append)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: engine)
    monkeypatch.setattr(Library, "create", lambda *_: runtime)
    with pytest.raises(BuildError, match="cannot load the engine here"):
        engine_embedder(rtx, b"")
    strategy = rtx.trt.DynamicShapesKernelSpecializationStrategy
    assert asked[0].dynamic_shapes_kernel_specialization_strategy == strategy.EAGER
    assert hasattr(rtx.trt.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
