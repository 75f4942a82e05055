"""Training and ONNX Runtime on a CUDA GPU. Run with `python -m pytest tests/gpu`."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tests.support.bundles import write_bundle
from tests.training.cli.test_run import SMALL, pan_train
from tests.training.conftest import write_crop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU that this PyTorch can use"),
]
needs_ort_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu (extra [gpu])"
)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crops")
    for person in range(1, 13):
        for camera in (1, 2):
            for frame in range(2):
                folder = "bounding_box_train" if person <= 8 else ("query" if frame == 0 else "bounding_box_test")
                write_crop(root / folder / f"{person:04d}_c{camera}s1_{frame:06d}_00.jpg", 100 * person + frame)
    return root


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_trained_on_a_gpu_evaluates_to_the_same_map_on_a_cpu(
    crops: Path, tmp_path: Path, precision: str
) -> None:
    arguments = [f"data.path={crops}", *SMALL, "device=cuda", f"precision={precision}"]
    gpu = json.loads(pan_train("run", "--out", tmp_path / "run", "--json", *arguments).stdout)["evaluation"]
    cpu = json.loads(pan_train("evaluate", tmp_path / "run", "--data", crops, "--json").stdout)
    assert cpu["mAP"] == pytest.approx(gpu["mAP"], abs=0.5)


@needs_ort_gpu
def test_cuda_and_cpu_compute_the_same_vectors(tmp_path: Path) -> None:
    from service.inference.engine import Engine
    from service.inference.engines.onnxruntime import OnnxRunner
    from tests.support.bundles import SIGNATURE

    path = write_bundle(tmp_path / "bundle") / "model.onnx"
    cpu, cuda = (Engine(OnnxRunner(path, SIGNATURE, device), SIGNATURE) for device in ("cpu", "cuda"))
    rng = np.random.default_rng(0)
    for batch in (1, 3, 8, 33):
        images = rng.integers(0, 256, (batch, cpu.height, cpu.width, 3), np.uint8)
        cosine = (cpu.embed(images) * cuda.embed(images)).sum(1)
        assert cosine.min() > 0.9999


def test_inspect_measures_the_memory_of_training() -> None:
    """Activations alone are less than the measured peak, which has weights, gradients and momentum too."""
    arguments = ["--depth", "18", "--width", "0.25", "--size", "128x64", "--measure", "--json", "--device", "cuda"]
    baseline, pan = json.loads(pan_train("inspect", "baseline", "pan_c", *arguments).stdout)
    for row in (baseline, pan):
        assert row["ms_per_crop"] > 0
        assert row["activation_gib"] < row["training_gib"] < 3 * row["activation_gib"] + 1
    assert pan["training_gib"] / baseline["training_gib"] < 1.2
