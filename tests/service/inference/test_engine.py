"""The engine against the model's definition, and the check of the installed wheels."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.core import packages
from service.core.errors import EngineFailed, StartupError
from service.inference.engine import Engine, Signature, padded_size
from service.inference.engines.onnxruntime import OnnxRunner
from tests.support.bundles import DIM, HEIGHT, SIGNATURE, WIDTH, onnx_runner, reference_embedding


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, size=(count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_vectors_agree_with_the_definition_of_the_model(bundle: Path, count: int) -> None:
    vectors = Engine(onnx_runner(bundle), SIGNATURE).embed(crops(count))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference_embedding(crops(count)), atol=1e-5)


def test_a_batch_over_the_engine_limit_is_split(bundle: Path) -> None:
    sizes = []

    class Recording(OnnxRunner):
        def run(self, crops: np.ndarray) -> np.ndarray:
            sizes.append(len(crops))
            return super().run(crops)

    engine = Engine(Recording(bundle / "model.onnx", SIGNATURE, max_batch=4), SIGNATURE)
    np.testing.assert_allclose(engine.embed(crops(11)), reference_embedding(crops(11)), atol=1e-5)
    assert sizes == [4, 4, 3]


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="onnxruntime may find a GPU")
def test_a_silent_fallback_to_the_cpu_is_refused(bundle: Path) -> None:
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(StartupError, match="fell back from cuda to CPU"),
    ):
        OnnxRunner(bundle / "model.onnx", SIGNATURE, "cuda")


def test_a_graph_that_contradicts_the_manifest_is_refused(bundle: Path) -> None:
    with pytest.raises(StartupError, match="export the bundle again"):
        OnnxRunner(bundle / "model.onnx", Signature(128, WIDTH, DIM))


def test_crops_of_a_wrong_shape_are_an_engine_failure(bundle: Path) -> None:
    with pytest.raises(EngineFailed, match="batch of 1"):
        Engine(onnx_runner(bundle), SIGNATURE).embed(np.zeros((1, 8, 8, 3), np.uint8))


class Answering:
    """A runner that returns given rows, and `to_grey` for a grey image."""

    max_batch = None

    def __init__(self, rows: np.ndarray, to_grey: float) -> None:
        self.rows, self.to_grey = rows.astype(np.float32), to_grey

    def run(self, crops: np.ndarray) -> np.ndarray:
        return np.full((1, DIM), self.to_grey, np.float32) if (crops == 128).all() else self.rows

    def close(self) -> None: ...


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf, 1e-45])
def test_a_crop_without_a_direction_becomes_nan_and_an_engine_without_any_direction_fails(nothing: float) -> None:
    rows = np.vstack([np.arange(DIM), np.full(DIM, nothing), np.full(DIM, 3e38)])
    vectors = Engine(Answering(rows, 1.0), SIGNATURE).embed(crops(3))
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False]
    np.testing.assert_allclose(vectors[0], np.arange(DIM) / np.sqrt((np.arange(DIM) ** 2).sum()), rtol=1e-6)
    np.testing.assert_allclose(vectors[2], np.full(DIM, DIM**-0.5), rtol=1e-6)
    alone = rows[1:2]
    assert np.isnan(Engine(Answering(alone, 1.0), SIGNATURE).embed(crops(1))).all()
    with pytest.raises(EngineFailed, match="for a grey image too"):
        Engine(Answering(alone, nothing), SIGNATURE).embed(crops(1))


@pytest.mark.parametrize(
    ("count", "least", "most", "size"),
    [(1, 1, None, 1), (3, 1, None, 4), (33, 1, None, 64), (33, 1, 48, 48), (1, 3, 24, 3), (4, 3, 24, 4), (8, 8, 8, 8)],
)
def test_a_batch_is_padded_to_a_power_of_two_within_the_limits(
    count: int, least: int, most: int | None, size: int
) -> None:
    assert padded_size(count, least, most) == size


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (
            {"onnxruntime": "1", "onnxruntime-gpu": "1", "faiss-cpu": "1"},
            "pip uninstall -y onnxruntime onnxruntime-gpu",
        ),
        ({"onnxruntime": "1", "faiss-cpu": "1", "faiss-gpu": "1"}, "pip uninstall -y faiss-cpu faiss-gpu"),
        ({"faiss-cpu": "1"}, "onnxruntime is not installed"),
    ],
)
def test_an_environment_without_exactly_one_wheel_of_a_module_is_refused(
    installed: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(packages, "version", version)
    with pytest.raises(StartupError, match=message):
        packages.check_binary_packages()


def test_the_installed_wheels_are_reported() -> None:
    assert packages.check_binary_packages()["onnxruntime"].endswith(ort.__version__)
