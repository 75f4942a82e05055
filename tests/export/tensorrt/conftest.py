"""A bundle to add engines to, typed graphs, and TensorRT-RTX, which compiles without a GPU (tests/gpu runs engines)."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from bundle import (
    EngineFile,
    Manifest,
    OutputSpec,
    Parity,
    save_manifest,
    sha256_file,
)
from export.bundles.exporter import model_info
from export.bundles.targets import MeasurementSettings
from export.onnx.float16 import to_float16
from export.parity.gates import DEFAULTS, Gates
from export.parity.samples import synthetic_samples
from export.quantisation.qdq import calibrate, quantise
from export.tensorrt.build import BuildSettings, parse_batch_profile
from export.tensorrt.library import Library, find_library
from export.tensorrt.network import ParsedNetwork, parse
from tests.export.bundles.test_exporter import everything
from tests.export.conftest import SPEC, Traced

# random weights lose accuracy in INT8, so its gates are wide: they are not the subject of these tests
LOOSE = MeasurementSettings(images=4, calibration=8, gates={**DEFAULTS, "int8": Gates(0.5, 0.5, 100.0)})


@pytest.fixture(scope="session", autouse=True)
def _needs_tensorrt_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx (extra [rtx])", exc_type=ImportError)


@pytest.fixture(scope="session")
def rtx() -> Library:
    """TensorRT-RTX."""
    return find_library("tensorrt_rtx")


@pytest.fixture(scope="session")
def clean_bundle(pan_c: Traced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `pan_c` with its float32 file only."""
    folder = tmp_path_factory.mktemp("tensorrt") / "bundle"
    folder.mkdir()
    shutil.copyfile(pan_c.path, folder / "model.float32.onnx")
    same = Parity(data="none", images=1, batch_sizes=(1,), cosine_min=1.0, cosine_mean=1.0, gate_cosine_min=0.99999)
    file = EngineFile(
        name="model.float32.onnx",
        kind="onnx",
        precision="float32",
        bytes=pan_c.path.stat().st_size,
        sha256=sha256_file(pan_c.path),
        parity=same,
    )
    info = model_info(pan_c.network, pan_c.card)
    manifest = Manifest(
        model=info,
        input=SPEC,
        output=OutputSpec(dim=info.embedding_size),
        files=(file,),
        provenance=pan_c.card.provenance,
    )
    save_manifest(folder, manifest)
    return folder


@pytest.fixture
def bundle(clean_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(clean_bundle, tmp_path / "bundle"))


@pytest.fixture
def untouched(bundle: Path) -> Iterator[Path]:
    """A bundle that the test must leave as it was."""
    before = everything(bundle)
    yield bundle
    assert everything(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.fixture(scope="session")
def typed(pan_c: Traced) -> dict[str, onnx.ModelProto]:
    """The typed graph of each precision."""
    float32 = pan_c.model
    crops = synthetic_samples(SPEC, 8).images_NHW3
    return {
        "float32": float32,
        "float16": to_float16(pan_c.model),
        "int8": quantise(calibrate(float32, crops), scheme="tensorrt"),
    }


def settings(batch: str = "1:2:4", **others: Any) -> BuildSettings:
    """Build settings with a batch profile."""
    return BuildSettings(batch=parse_batch_profile(batch), **others)


def read(library: Library, model: onnx.ModelProto, dim: int = 1536) -> ParsedNetwork:
    """Parse a graph with the library."""
    return parse(library, model.SerializeToString(), SPEC, dim)


def outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The descriptors of a graph in ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]
