"""TensorRT and TensorRT-RTX in the service on a GPU. Run with `python -m pytest tests/gpu`."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from bundle import load_bundle, sha256_file
from service.core.errors import StartupError
from service.core.settings import Settings
from service.inference.engines.hardware import detect_hardware
from service.inference.engines.loader import ENGINES_FOLDER, load_engine
from tests.support.bundles import HEIGHT, WIDTH, change, reference_embedding, write_bundle
from tests.support.servers import running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU that this PyTorch can use"),
]
MAX_BATCH = 16


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def trt(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param, reason=f"needs {request.param} (extra [tensorrt] or [rtx])")


@pytest.fixture
def folder(trt: Any, tmp_path: Path) -> Path:
    """A bundle with its ONNX file and an unverified engine built from it."""
    folder = write_bundle(tmp_path / "bundle")
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    network = builder.create_network(0)
    assert trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING)).parse((folder / "model.onnx").read_bytes())
    profile = builder.create_optimization_profile()
    profile.set_shape("crops", *((size, HEIGHT, WIDTH, 3) for size in (2, 8, MAX_BATCH)))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(profile)
    path = folder / "model.engine"
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))
    engine = {
        "name": path.name,
        "kind": trt.__name__,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "batch": {"min": 2, "opt": 8, "max": MAX_BATCH},
        "parity": None,
        "built_for": {"library_version": trt.__version__},
    }
    return change(folder, {}, engine)


def settings(folder: Path, **more: Any) -> Settings:
    (folder.parent / "data").mkdir(exist_ok=True)
    return Settings(bundle=folder, data=folder.parent / "data", **more)


def test_parity_is_checked_once_and_vectors_agree_with_the_definition(trt: Any, folder: Path) -> None:
    bundle = load_bundle(folder)
    with pytest.raises(StartupError, match="--allow-unverified"):
        load_engine(bundle, settings(folder, engine=trt.__name__))
    wanted = settings(folder, engine=trt.__name__, precision="float32", allow_unverified=True)
    loaded = load_engine(bundle, wanted)
    assert loaded.engine.max_batch == MAX_BATCH
    assert loaded.parity.cosine_min >= loaded.parity.gate_cosine_min
    for count in (1, 3, MAX_BATCH, 40, 2):
        crops = np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
        cosine = (loaded.engine.embed(crops) * reference_embedding(crops)).sum(1)
        assert cosine.min() > 0.9999
    loaded.engine.close()
    (record,) = (wanted.data / ENGINES_FOLDER).glob("*.json")
    written = record.stat().st_mtime_ns
    again = load_engine(bundle, wanted)
    assert again.parity == loaded.parity
    assert record.stat().st_mtime_ns == written
    again.engine.close()


def test_the_service_runs_the_engine_and_reports_it(trt: Any, folder: Path) -> None:
    with running(settings(folder, engine=trt.__name__, allow_unverified=True)) as client:
        model = client.get("/v1/model").json()
        assert (model["engine"], model["device"], model["max_batch"]) == (trt.__name__, "cuda", MAX_BATCH)
        assert client.get("/readyz").status_code == httpx.codes.OK


def test_an_engine_for_another_gpu_or_version_is_refused(trt: Any, folder: Path) -> None:
    gpu = detect_hardware().gpu
    assert gpu is not None
    entry = load_bundle(folder).manifest.files[1].model_dump(mode="json")
    for built_for, says in [
        ({"library_version": "1.0.0"}, "1.0.0, and"),
        ({"library_version": trt.__version__, "compute_capability": "5.0"}, "compute capability 5.0, and this GPU is"),
    ]:
        change(folder, {}, {**entry, "built_for": built_for})
        with pytest.raises(StartupError, match=says):
            load_engine(load_bundle(folder), settings(folder, engine=trt.__name__, allow_unverified=True))


def test_a_truncated_engine_is_refused(trt: Any, folder: Path) -> None:
    path = folder / "model.engine"
    entry = load_bundle(folder).manifest.files[1].model_dump(mode="json")
    path.write_bytes(path.read_bytes()[:5000])
    change(folder, {}, {**entry, "bytes": 5000, "sha256": sha256_file(path)})
    with pytest.raises(StartupError, match=r"does not load model\.engine"):
        load_engine(load_bundle(folder), settings(folder, engine=trt.__name__, allow_unverified=True))
