"""Export of TensorRT engines on a GPU: each is built and measured there before it is added to the bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle import Provenance, load_bundle
from export.bundles.exporter import export_checkpoint
from export.bundles.targets import MeasurementSettings
from export.engines import onnx_embedder
from export.errors import BuildError
from export.parity.gates import DEFAULTS, Gates
from export.parity.samples import synthetic_samples
from export.tensorrt import timing_cache
from export.tensorrt.build import BuildSettings, parse_batch_profile
from export.tensorrt.export import export_tensorrt
from export.tensorrt.library import Library, find_library
from export.tensorrt.runtime import cannot_run_reason, engine_embedder, find_gpu
from tests.export.conftest import SPEC, make_network
from training.checkpoint import Card, save_checkpoint
from training.model import PAN

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU that this PyTorch can use"),
]
FEW = MeasurementSettings(images=8, calibration=16, gates={**DEFAULTS, "int8": Gates(0.5, 0.5, 100.0)})


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def library(request: pytest.FixtureRequest) -> Library:
    pytest.importorskip(request.param, reason=f"needs {request.param}", exc_type=ImportError)
    found = find_library(request.param)
    if why := cannot_run_reason(found, find_gpu(), None):
        pytest.skip(why)
    return found


@pytest.fixture(scope="module")
def network() -> PAN:
    return make_network("pan_c")


@pytest.fixture
def bundle(network: PAN, tmp_path: Path) -> Path:
    origin = Provenance(data="none", recipe="random weights", iterations=0, seed=0)
    card = Card(variant="pan_c", network=network.config, input=SPEC, provenance=origin)
    save_checkpoint(tmp_path / "model.safetensors", network, card)
    export_checkpoint(tmp_path / "model.safetensors", tmp_path / "bundle", measuring=FEW)
    return tmp_path / "bundle"


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_engine_is_measured_on_the_gpu_before_it_is_added(bundle: Path, library: Library, precision: Any) -> None:
    settings = BuildSettings(parse_batch_profile("1:8:32"))
    built = export_tensorrt(bundle, precision, settings, library=library.name, measuring=FEW)
    entry, path = load_bundle(bundle).file(library.name, precision)
    assert built.unverified is None
    assert entry.parity is not None
    assert entry.parity.cosine_min >= FEW.gates[precision].min_cosine
    assert entry.parity.batch_sizes == (1, 2, 7, 8, 32)
    assert timing_cache.cache_path(bundle).exists() == (library.name == "tensorrt")

    images = synthetic_samples(SPEC, 8, seed=5).images_NHW3
    ours = engine_embedder(library, path.read_bytes())(images)
    reference = onnx_embedder(bundle / "model.float32.onnx", 2)(images)
    assert float((ours * reference).sum(1).min()) >= FEW.gates[precision].min_cosine
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-3)


def test_a_batch_outside_the_profile_and_a_truncated_engine_are_refused(bundle: Path, library: Library) -> None:
    settings = BuildSettings(parse_batch_profile("2:4:8"))
    built = export_tensorrt(bundle, "float32", settings, library=library.name, measuring=FEW)
    serialised = (bundle / built.entry.name).read_bytes()
    embed = engine_embedder(library, serialised)
    with pytest.raises(BuildError, match="refuses a batch of shape"):
        embed(synthetic_samples(SPEC, 9).images_NHW3)
    with pytest.raises(BuildError, match="cannot load the engine here"):
        engine_embedder(library, serialised[: len(serialised) // 2])
