"""Parity of an engine that export could not run."""

from pathlib import Path

import numpy as np
import pytest

from bundle import BuiltFor, EngineFile
from service.core.errors import StartupError
from service.inference.engine import Engine
from service.inference.engines.loader import ENGINES_FOLDER
from service.inference.engines.parity_check import check_parity, generate_figures, measure_parity
from tests.support.bundles import DIM, SIGNATURE, onnx_runner

UNVERIFIED = EngineFile(
    name="model.engine",
    kind="tensorrt",
    precision="float16",
    bytes=1,
    sha256="0" * 64,
    parity=None,
    built_for=BuiltFor(library_version="11.4.0", compute_capability="8.9"),
)


class Noisy:
    """The real engine with noise on its output, like a bad build."""

    max_batch = 4

    def __init__(self, folder: Path, noise: float) -> None:
        self._runner, self._noise = onnx_runner(folder), noise

    def run(self, crops: np.ndarray) -> np.ndarray:
        vectors = self._runner.run(crops) + np.random.default_rng(0).normal(0, self._noise, (len(crops), DIM))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def close(self) -> None: ...


def test_parity_is_measured_once_per_machine_and_stored(bundle: Path, tmp_path: Path) -> None:
    measured = []

    def reference() -> Engine:
        measured.append(1)
        return Engine(onnx_runner(bundle), SIGNATURE)

    engine = Engine(Noisy(bundle, 1e-3), SIGNATURE)
    folder = tmp_path / ENGINES_FOLDER
    first = check_parity(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA L4")
    assert 0.999 < first.cosine_min < 0.99999
    assert first.consistency_min is not None
    assert first.consistency_min > 0.999
    assert (first.images, first.batch_sizes, first.gate_cosine_min) == (32, (1, 7, 32), 0.999)
    assert check_parity(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA L4") == first
    assert len(measured) == 1
    check_parity(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA T4")
    assert len(measured) == 2
    (record,) = folder.iterdir()
    record.write_text(record.read_text()[:20])  # truncated, as after a power loss
    check_parity(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA T4")
    assert len(measured) == 3


def test_an_engine_that_deviates_is_refused_and_nothing_is_stored(bundle: Path, tmp_path: Path) -> None:
    engine = Engine(Noisy(bundle, 0.05), SIGNATURE)
    with pytest.raises(StartupError, match=r"deviates from the bundle's float32 file: min cosine 0\.9.*gate is 0\.999"):
        check_parity(
            UNVERIFIED, engine, lambda: Engine(onnx_runner(bundle), SIGNATURE), tmp_path / ENGINES_FOLDER, "here"
        )
    assert not (tmp_path / ENGINES_FOLDER).exists()


def test_parity_of_a_collapsed_network_is_refused(bundle: Path) -> None:
    class Constant(Noisy):
        def run(self, crops: np.ndarray) -> np.ndarray:
            return np.tile(np.eye(1, DIM, dtype=np.float32), (len(crops), 1))

    engine = Engine(Constant(bundle, 0), SIGNATURE)
    with pytest.raises(StartupError, match="nearly one vector"):
        measure_parity(engine, engine, "float32")


def test_generated_figures_are_deterministic_and_distinct() -> None:
    first, again = generate_figures(8, 96, 48), generate_figures(8, 96, 48)
    np.testing.assert_array_equal(first, again)
    flat = first.reshape(8, -1).astype(np.float64)
    assert np.abs(np.corrcoef(flat)[~np.eye(8, dtype=bool)]).max() < 0.95
