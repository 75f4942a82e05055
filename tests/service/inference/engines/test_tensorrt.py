"""The TensorRT runner on a fake CUDA: batch sizes, padding, graphs, memory and errors. tests/gpu uses a real GPU."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle import BuiltFor, load_crop, sha256_file
from service.core.errors import EngineFailed, StartupError
from service.core.settings import Settings
from service.inference.engine import Engine, Signature
from service.inference.engines import cuda, hardware
from service.inference.engines.cuda import CheckedCuda
from service.inference.engines.loader import ENGINES_FOLDER
from service.inference.engines.tensorrt import TensorRtRunner, batch_sizes
from tests.support import nvidia
from tests.support.bundles import DIM, HEIGHT, SIGNATURE, WIDTH, change, reference_embedding, write_bundle
from tests.support.pictures import png
from tests.support.servers import running


class Rig:
    """An engine on the fake CUDA."""

    def __init__(
        self, folder: Path, profile: tuple[int, int] = (1, 8), rtx: bool = False, signature: Signature = SIGNATURE
    ) -> None:
        self.cuda = nvidia.Cuda()
        self.api = nvidia.library(self.cuda, profile, captures_itself=rtx)
        self.cache = folder / "kernels"
        self.plan = folder / "model.engine"
        if not self.plan.exists():
            self.plan.write_bytes(b"engine")
        self._signature = signature

    def start(self) -> Engine:
        built_for = BuiltFor(library_version="1")
        runner = TensorRtRunner(self.api, CheckedCuda(self.cuda), self.plan, self._signature, built_for, self.cache)
        engine = Engine(runner, self._signature)
        self.started_with, self.cuda.calls = self.cuda.calls, []
        return engine


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize(
    ("profile", "sizes"),
    [
        ((1, 8), [1, 2, 4, 8]),
        ((1, 1), [1]),
        ((3, 24), [3, 4, 8, 16, 24]),
        ((8, 8), [8]),
        ((1, 33), [1, 2, 4, 8, 16, 32, 33]),
    ],
)
def test_batch_sizes_are_powers_of_two_within_the_profile(profile: tuple[int, int], sizes: list[int]) -> None:
    assert batch_sizes(*profile) == sizes


@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("profile", [(1, 8), (3, 6)])
def test_any_number_of_crops_is_embedded_in_batches_of_the_profile(
    tmp_path: Path, profile: tuple[int, int], rtx: bool
) -> None:
    engine = Rig(tmp_path, profile, rtx).start()
    for count in (1, 8, 3, 19, 5):  # padding must not contain crops of an earlier, larger batch
        np.testing.assert_allclose(engine.embed(crops(count)), reference_embedding(crops(count)), atol=1e-6)


def test_each_batch_size_is_captured_once_and_then_launched(tmp_path: Path) -> None:
    rig = Rig(tmp_path, (1, 4))
    engine = rig.start()
    runs = [["copy in", f"run {size}", "copy out", "capture"] for size in (1, 2, 4)]
    assert rig.started_with == [call for run in runs for call in run]
    for count in (3, 4, 1, 9):
        engine.embed(crops(count))
    assert rig.cuda.calls == ["launch of 3"] * 6  # copy, run, copy; nine crops take three launches
    assert engine.max_batch == 4


def test_tensorrt_rtx_captures_its_own_graphs_and_caches_its_kernels(tmp_path: Path) -> None:
    rig = Rig(tmp_path, (1, 4), rtx=True)
    engine = rig.start()
    assert rig.api.engine.config.cuda_graph_strategy == "WHOLE_GRAPH_CAPTURE"
    assert rig.api.engine.config.dynamic_shapes_kernel_specialization_strategy == "EAGER"
    assert "capture" not in rig.started_with
    engine.embed(crops(3))
    assert rig.cuda.calls == ["copy in", "run 4", "copy out"]
    engine.close()
    assert rig.cache.read_bytes() == b"kernels"

    rig.cache.write_bytes(b"kernels of this GPU")
    again = Rig(tmp_path, rtx=True)
    again.start()
    assert again.api.engine.config.cache.blob == b"kernels of this GPU"
    rig.cache.write_bytes(b"of another driver")
    np.testing.assert_allclose(
        Rig(tmp_path, rtx=True).start().embed(crops(2)), reference_embedding(crops(2)), atol=1e-6
    )


@pytest.mark.parametrize("rtx", [False, True])
def test_close_frees_all_memory(tmp_path: Path, rtx: bool) -> None:
    rig = Rig(tmp_path, rtx=rtx)
    engine = rig.start()
    assert rig.cuda.held
    engine.close()
    assert rig.cuda.held == {}


def test_a_file_that_does_not_load_is_refused_with_the_reason_from_the_library(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.plan.write_bytes(b"cut sho")
    with pytest.raises(StartupError, match=r"does not load model.engine \(magicTag mismatch\); build it here"):
        rig.start()


def test_an_engine_with_another_signature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"'uint8', \[64, 32, 3\].*the manifest says .*\[384, 128, 3\]"):
        Rig(tmp_path, signature=Signature(384, 128, DIM)).start()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaMallocHost"])
def test_out_of_memory_is_reported(tmp_path: Path, call: str) -> None:
    rig = Rig(tmp_path)
    rig.cuda.fails = call
    with pytest.raises(EngineFailed, match=f"{call}: cudaErrorMemoryAllocation, out of memory"):
        rig.start()


def test_a_kernel_that_fails_is_reported_with_the_reason(tmp_path: Path) -> None:
    rig = Rig(tmp_path, rtx=True)
    engine = rig.start()
    rig.api.engine.fails = True
    with pytest.raises(EngineFailed, match=r"batch of 2.*the kernel did not launch"):
        engine.embed(crops(2))
    rig.api.engine.fails, rig.cuda.fails = False, "cudaStreamSynchronize"
    with pytest.raises(EngineFailed, match="cudaStreamSynchronize"):
        engine.embed(crops(2))
    rig.cuda.fails = None
    np.testing.assert_allclose(engine.embed(crops(2)), reference_embedding(crops(2)), atol=1e-6)


def test_the_service_checks_parity_at_the_first_start_and_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, (1, 8))
    monkeypatch.setitem(sys.modules, "tensorrt", rig.api)
    for module in (cuda, hardware):
        monkeypatch.setattr(module, "cuda_runtime", lambda: CheckedCuda(rig.cuda))
    folder = write_bundle(tmp_path / "bundle")
    (folder / "model.engine").write_bytes(b"engine")
    engine = {"name": "model.engine", "bytes": 6, "sha256": sha256_file(folder / "model.engine"), "parity": None}
    built_for = {"library_version": "1", "compute_capability": "8.9"}
    change(folder, {}, {**engine, "kind": "tensorrt", "precision": "float16", "built_for": built_for})

    careful = Settings(bundle=folder, data=tmp_path / "data")
    with running(careful) as client:
        reason = client.get("/v1/model").json()["reason"]
    assert reason.startswith(
        "onnxruntime on cpu, float32, selected by auto; rejected: tensorrt on cuda (model.engine is"
    )
    bold = replace(careful, allow_unverified=True)
    with running(bold) as client:
        model = client.get("/v1/model").json()
        answer = client.post("/v1/embeddings", files={"images": png(1)}).json()["embeddings"][0]
    found = [model[name] for name in ("engine", "device", "precision", "max_batch")]
    assert found == ["tensorrt", "cuda", "float16", 8]
    assert (model["parity"]["images"], model["parity"]["gate_cosine_min"]) == (32, 0.999)
    assert "on the service's own machine" in model["parity"]["data"]
    expected = reference_embedding(load_crop(png(1), HEIGHT, WIDTH)[None])[0]
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-6)
    assert rig.cuda.held == {}
    (record,) = (tmp_path / "data" / ENGINES_FOLDER).iterdir()
    assert json.loads(record.read_text())["where"] == "tensorrt 1 on NVIDIA L4 (compute capability 8.9)"
    rig.cuda.calls.clear()
    with running(bold):
        pass
    assert rig.cuda.calls.count("launch of 3") == 1  # the warm-up; parity is not measured again


def test_every_name_of_the_fake_exists_in_the_real_packages() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings (extra [rtx])")
    api = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx (extra [rtx])")
    module = nvidia.library(nvidia.Cuda(), (1, 1), captures_itself=True)
    pairs = [
        (nvidia.Cuda, runtime),
        (nvidia.Context, api.IExecutionContext),
        (nvidia.Config, api.IRuntimeConfig),
        (nvidia.Cache, api.IRuntimeCache),
        (nvidia.Engine, api.ICudaEngine),
        (module.Runtime, api.Runtime),
        (module.ILogger, api.ILogger),
    ]
    for fake, real in pairs:
        names = {name for name in vars(fake) if not name.startswith("_")} - {"enqueue"}
        assert names <= set(dir(real)), fake
    kinds = runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode
    for name in (*nvidia.Cuda.cudaMemcpyKind.__members__, *nvidia.Cuda.cudaStreamCaptureMode.__members__):
        assert any(hasattr(kind, name) for kind in kinds)
    assert set(vars(module)) - {"engine"} <= set(dir(api))
    assert api.nptype(api.DataType.UINT8) is np.uint8
    assert hasattr(api.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(api.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(api.DynamicShapesKernelSpecializationStrategy, "EAGER")


def test_an_error_of_the_real_cuda_runtime_becomes_an_exception() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings (extra [rtx])")
    checked = CheckedCuda(runtime)
    assert checked.cudaStreamNonBlocking == 1
    assert checked.cudaRuntimeGetVersion() >= 12000
    with pytest.raises(EngineFailed, match=r"^cudaGetDeviceProperties: cudaError\w+, \w+"):
        checked.cudaGetDeviceProperties(4096)
