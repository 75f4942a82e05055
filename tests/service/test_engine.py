"""The engine against the model's definition, and what it refuses to start with."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bundle import BundleFileError, load_bundle, save_manifest
from service import wheels
from service.engine import OnnxEngine
from service.errors import EngineFailed, StartupError
from tests.service.bundles import DIM, HEIGHT, WIDTH, reference_embedding, write_bundle


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, size=(count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_embeds_as_the_model_is_defined(bundle: Path, count: int) -> None:
    vectors = OnnxEngine(load_bundle(bundle)).embed(crops(count))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference_embedding(crops(count)), atol=1e-5)


def with_batch(folder: Path, **batch: int) -> Path:
    write_bundle(folder)
    manifest = load_bundle(folder).manifest
    data = manifest.model_dump(mode="json")
    data["files"][0]["batch"] = batch
    save_manifest(folder, type(manifest).model_validate(data))
    return folder


def test_a_batch_over_the_engine_limit_is_split(tmp_path: Path) -> None:
    engine = OnnxEngine(load_bundle(with_batch(tmp_path, max=4)))
    np.testing.assert_allclose(engine.embed(crops(11)), reference_embedding(crops(11)), atol=1e-5)


def test_a_precision_the_bundle_lacks_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleFileError, match="it holds: onnx float32"):
        OnnxEngine(load_bundle(bundle), precision="int8")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="there may be a GPU")
def test_cuda_without_the_gpu_wheel_is_refused_and_not_replaced(bundle: Path) -> None:
    with pytest.raises(StartupError, match=r"CUDAExecutionProvider.*install 'pan-reid\[gpu\]'"):
        OnnxEngine(load_bundle(bundle), device="cuda")


def test_a_graph_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    manifest = load_bundle(tmp_path).manifest
    data = manifest.model_dump(mode="json")
    data["input"]["height"] = 128
    save_manifest(tmp_path, type(manifest).model_validate(data))
    with pytest.raises(StartupError, match="export it again"):
        OnnxEngine(load_bundle(tmp_path))


def test_crops_of_a_wrong_shape_are_an_engine_failure(bundle: Path) -> None:
    with pytest.raises(EngineFailed, match="batch of 1"):
        OnnxEngine(load_bundle(bundle)).embed(np.zeros((1, 8, 8, 3), np.uint8))


def test_numbers_that_are_no_embedding_are_an_engine_failure(bundle: Path) -> None:
    grey_sum_zero = np.full((1, HEIGHT, WIDTH, 3), 128, np.uint8)
    engine = OnnxEngine(load_bundle(bundle))
    assert np.isfinite(engine.embed(grey_sum_zero)).all()
    engine._run = lambda crops: np.full((len(crops), DIM), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(EngineFailed, match="NaN"):
        engine.embed(grey_sum_zero)


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
def test_an_environment_with_two_wheels_of_a_module_or_none_is_refused(
    installed: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(wheels, "version", version)
    with pytest.raises(StartupError, match=message):
        wheels.installed_wheels()


def test_the_wheels_of_this_environment_are_named() -> None:
    assert wheels.installed_wheels()["onnxruntime"].endswith(ort.__version__)
