"""Which engine runs and why, what is refused at start-up in which words, and OpenVINO beside ONNX Runtime."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from bundle import BuiltFor, EngineFile, Parity
from service.core.errors import StartupError
from service.inference.engine import Engine
from service.inference.engines.hardware import Gpu, Machine
from service.inference.engines.loader import FOLDER
from service.inference.engines.openvino import OpenVinoRunner
from service.inference.engines.parity_check import compare, pictures, verified
from service.inference.engines.select import choose
from tests.support.bundles import DIM, HEIGHT, SIGNATURE, WIDTH, change, onnx_runner, reference_embedding, write_bundle
from tests.support.servers import pan_serve

Launch = Callable[..., Served]

PARITY = Parity(data="none", images=1, batch_sizes=(1,), cosine_min=1, cosine_mean=1, gate_cosine_min=0.99)
L4 = Gpu("NVIDIA L4", "8.9")
NO_GPU = "CUDA finds no GPU"
CPU = Machine(
    {"onnxruntime": "1.32.0", "openvino": "2026.4.1"},
    lacks={
        ("onnxruntime", "cuda"): "no CUDAExecutionProvider",
        ("tensorrt", "cuda"): "tensorrt cannot be imported; pip install ./client '.[tensorrt]'",
        ("tensorrt_rtx", "cuda"): NO_GPU,
    },
)
GPU = Machine({"onnxruntime": "1.32.0", "openvino": "2026.4.1", "tensorrt": "11.4.0", "tensorrt_rtx": "1.7.1"}, L4)
BARE = replace(CPU, lacks={**CPU.lacks, ("openvino", "cpu"): "openvino is not installed"})


def entry(label: str, **members: Any) -> EngineFile:
    kind, precision = label.split()
    if kind.startswith("tensorrt") and "built_for" not in members:
        members["built_for"] = BuiltFor(library_version=GPU.versions[kind], compute_capability="8.9")  # type: ignore[index]
    data = {"name": f"{kind}.{precision}", "bytes": 1, "sha256": "0" * 64, "parity": PARITY, **members}
    return EngineFile(kind=kind, precision=precision, **data)  # type: ignore[arg-type]


ONNX, HALF, EIGHT = entry("onnx float32"), entry("onnx float16"), entry("onnx int8")
VINO, BRAIN = entry("openvino float32"), entry("openvino bfloat16")
TRT, RTX = entry("tensorrt float16"), entry("tensorrt_rtx float16")
UNVERIFIED = entry("tensorrt float16", parity=None)
ON_T4 = entry("tensorrt float16", built_for=BuiltFor(library_version="11.4.0", compute_capability="7.5"))
ON_A100 = BuiltFor(library_version="11.4.0", compute_capability="8.0", hardware_compatibility="ampere_plus")
OLD = entry("tensorrt float16", built_for=BuiltFor(library_version="10.16.1", compute_capability="8.9"))
FOR_ALL = entry("tensorrt_rtx float16", built_for=BuiltFor(library_version="1.7.1"))
LASTING = BuiltFor(library_version="11.2.0", compute_capability="8.9", version_compatible=True)


@pytest.mark.parametrize(
    ("files", "machine", "asked", "chosen"),
    [
        ([ONNX], CPU, {}, "onnxruntime cpu float32"),
        ([ONNX, HALF, EIGHT, VINO, BRAIN, TRT], CPU, {}, "onnxruntime cpu float32"),
        ([ONNX, EIGHT], CPU, {"precision": "int8"}, "onnxruntime cpu int8"),
        ([ONNX, VINO, BRAIN], CPU, {"precision": "bfloat16"}, "openvino cpu bfloat16"),
        ([ONNX, VINO], CPU, {"engine": "openvino"}, "openvino cpu float32"),
        ([ONNX, HALF, TRT, RTX], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, HALF, RTX], GPU, {}, "tensorrt_rtx cuda float16"),
        ([ONNX, FOR_ALL], GPU, {}, "tensorrt_rtx cuda float16"),
        ([ONNX, FOR_ALL], replace(GPU, gpu=Gpu("Tesla T4", "7.5")), {}, "onnxruntime cuda float32"),
        ([ONNX, FOR_ALL], replace(GPU, gpu=Gpu("NVIDIA H100", "9.0")), {}, "onnxruntime cuda float32"),
        ([ONNX, FOR_ALL], replace(GPU, gpu=Gpu("Jetson AGX Orin", "8.7")), {}, "onnxruntime cuda float32"),
        ([ONNX, HALF], GPU, {}, "onnxruntime cuda float16"),
        ([ONNX, EIGHT], GPU, {}, "onnxruntime cuda float32"),
        ([ONNX, HALF, TRT], GPU, {"device": "cpu"}, "onnxruntime cpu float32"),
        ([ONNX, HALF, TRT], GPU, {"precision": "float32"}, "onnxruntime cuda float32"),
        ([ONNX, HALF, UNVERIFIED], GPU, {}, "onnxruntime cuda float16"),
        ([ONNX, HALF, UNVERIFIED], GPU, {"allow_unverified": True}, "tensorrt cuda float16"),
        ([ONNX, ON_T4], GPU, {}, "onnxruntime cuda float32"),
        ([ONNX, ON_T4, TRT], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, OLD], GPU, {}, "onnxruntime cuda float32"),
        ([ONNX, entry("tensorrt float16", built_for=ON_A100)], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, entry("tensorrt float16", built_for=LASTING)], GPU, {}, "tensorrt cuda float16"),
        ([ONNX, entry("tensorrt float32", purpose="explain")], GPU, {}, "onnxruntime cuda float32"),
    ],
)
def test_the_best_verified_file_that_this_machine_runs_is_chosen(
    files: list[EngineFile], machine: Machine, asked: dict[str, Any], chosen: str
) -> None:
    choice = choose(files, machine, **asked)
    assert f"{choice.engine} {choice.device} {choice.file.precision}" == chosen
    assert choice.file in files


def test_the_reason_names_what_was_passed_over_and_why() -> None:
    assert choose([ONNX], CPU, engine="onnxruntime", device="cpu").reason == "onnxruntime on cpu, float32, as asked for"
    reason = choose([ONNX, TRT, RTX], CPU).reason
    assert reason.startswith(
        "onnxruntime on cpu, float32, chosen by auto; passed over: tensorrt on cuda (tensorrt cannot"
    )
    assert "tensorrt_rtx on cuda (CUDA finds no GPU)" in reason
    assert "onnxruntime on cuda (no CUDAExecutionProvider)" in reason
    assert "openvino" not in reason  # it comes after what was chosen
    bare = choose([ONNX], GPU, device="cuda").reason
    assert (
        bare
        == "onnxruntime on cuda, float32, chosen by auto; not in the bundle: tensorrt on cuda, tensorrt_rtx on cuda"
    )


@pytest.mark.parametrize(
    ("files", "machine", "asked", "says"),
    [
        ([ONNX], CPU, {"precision": "int8"}, "the bundle has no int8 file; it holds onnx float32"),
        ([ONNX], CPU, {"engine": "openvino"}, "the bundle has no openvino float32 file"),
        ([ONNX, VINO], BARE, {"engine": "openvino"}, "openvino is not installed"),
        ([ONNX], CPU, {"device": "cuda"}, "onnxruntime on cuda (no CUDAExecutionProvider)"),
        ([ONNX, TRT], CPU, {"engine": "tensorrt"}, "pip install ./client '.[tensorrt]'"),
        ([ONNX, RTX], CPU, {"engine": "tensorrt_rtx"}, NO_GPU),
        ([ONNX, VINO], GPU, {"engine": "openvino", "device": "cuda"}, "openvino runs on cpu only"),
        ([ONNX, TRT], GPU, {"engine": "tensorrt", "device": "cpu"}, "tensorrt runs on cuda only"),
        ([ONNX, UNVERIFIED], GPU, {"engine": "tensorrt"}, "--allow-unverified"),
        (
            [ONNX, ON_T4],
            GPU,
            {"engine": "tensorrt"},
            "compute capability 7.5, and this GPU is NVIDIA L4 (compute capability 8.9); build one for it: "
            "`pan-export tensorrt BUNDLE --library tensorrt --precision float16`",
        ),
        (
            [ONNX, FOR_ALL],
            replace(GPU, gpu=Gpu("NVIDIA H100", "9.0")),
            {"engine": "tensorrt_rtx"},
            "compute capability 8.0, 8.6, 8.9, 12.0, 12.1, and this GPU is NVIDIA H100 (compute capability 9.0); build "
            "one for it: `pan-export tensorrt BUNDLE --library tensorrt --precision float16`",
        ),
        (
            [ONNX, FOR_ALL],
            replace(GPU, gpu=Gpu("Tesla T4", "7.5")),
            {"engine": "tensorrt_rtx"},
            "`pan-export tensorrt BUNDLE --library tensorrt_rtx --precision float16 --compute-capability 7.5`",
        ),
        ([ONNX, OLD], GPU, {"engine": "tensorrt"}, "tensorrt 10.16.1, and 11.4.0 is installed; build one for it"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_way_out(
    files: list[EngineFile], machine: Machine, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(StartupError) as refused:
        choose(files, machine, **asked)
    assert says in str(refused.value)


# -- OpenVINO


def openvino_engine(folder: Path, precision: str) -> Engine:
    return Engine(OpenVinoRunner(folder / "model.onnx", SIGNATURE, precision), SIGNATURE)  # type: ignore[arg-type]


def capable(capability: str) -> bool:
    import openvino  # after service, which silences it

    return capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("count", [1, 7, 33])
def test_openvino_gives_the_models_vectors(bundle: Path, count: int) -> None:
    crops = np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    cosine = (openvino_engine(bundle, "float32").embed(crops) * reference_embedding(crops)).sum(1)
    assert cosine.min() > 0.99999


@pytest.mark.skipif(not capable("BF16"), reason="this CPU does not compute in bfloat16")
def test_openvino_computes_in_bfloat16_only_when_asked_to(bundle: Path) -> None:
    crops = pictures(16, HEIGHT, WIDTH)
    cosine = (openvino_engine(bundle, "bfloat16").embed(crops) * reference_embedding(crops)).sum(1)
    assert 0.99 < cosine.min() < 0.99999


@pytest.mark.skipif(capable("FP16"), reason="this CPU computes in float16")
def test_a_precision_the_cpu_lacks_is_refused_and_not_replaced(bundle: Path) -> None:
    with pytest.raises(StartupError, match="does not compute in float16"):
        openvino_engine(bundle, "float16")


def test_openvino_reports_nothing_to_anybody(bundle: Path, tmp_path: Path) -> None:
    """Its wheel sends an event to an analytics service whenever it is imported, and leaves a folder at home."""
    program = """
import sys
sys.addaudithook(lambda event, arguments: event.startswith("socket.") and print(event, arguments))
from pathlib import Path
from service.inference.engines.openvino import OpenVinoRunner
from service.inference.engine import Signature
OpenVinoRunner(Path(sys.argv[1]) / "model.onnx", Signature(*map(int, sys.argv[2:])), "float32")
print("done")
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # in which it keeps quiet
    arguments = [str(bundle), str(HEIGHT), str(WIDTH), str(DIM)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "HOME": str(tmp_path)},
    )
    assert done.stdout == "done\n"
    assert list(tmp_path.iterdir()) == []


# -- the service


def test_it_serves_with_openvino_when_asked_to(launch: Launch, tmp_path: Path) -> None:
    folder = change(write_bundle(tmp_path / "b"), {}, {"kind": "openvino", "batch": {"max": 8}})
    server = launch("--engine", "openvino", bundle=folder)
    model = httpx.get(f"{server.url}/v1/model").json()
    assert (model["engine"], model["device"], model["precision"], model["max_batch"]) == (
        "openvino",
        "cpu",
        "float32",
        8,
    )
    assert model["reason"] == "openvino on cpu, float32, as asked for"
    assert model["parity"]["gate_cosine_min"] == 0.99999
    log = (tmp_path / "log").read_text()
    assert "openvino on cpu, float32, as asked for" in log


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "cuda"], "onnxruntime on cuda (onnxruntime"),
        (["--engine", "tensorrt_rtx"], "tensorrt_rtx on cuda ("),
        (
            ["--engine", "openvino", "--precision", "int8"],
            "the bundle has no openvino int8 file; it holds onnx float32",
        ),
    ],
)
def test_it_does_not_start_with_something_else_than_asked_for(tmp_path: Path, options: list[str], says: str) -> None:
    built_for = {"library_version": "1.7.1.116", "compute_capability": "8.9"}
    folder = change(
        write_bundle(tmp_path / "b"), {}, {"kind": "tensorrt_rtx", "precision": "float16", "built_for": built_for}
    )
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU")
    done = pan_serve("run", "--bundle", str(folder), "--data", str(tmp_path / "data"), "--port", "0", *options)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# -- verification


class Rounded:
    """The real engine, its output spoilt by noise: what a bad build would be."""

    max_batch = 4

    def __init__(self, folder: Path, noise: float) -> None:
        self._runner, self._noise = onnx_runner(folder), noise

    def run(self, crops: np.ndarray) -> np.ndarray:
        vectors = self._runner.run(crops) + np.random.default_rng(0).normal(0, self._noise, (len(crops), DIM))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def close(self) -> None: ...


def test_an_unverified_engine_is_measured_once_a_machine_and_remembered(bundle: Path, tmp_path: Path) -> None:
    measured = []

    def reference() -> Engine:
        measured.append(1)
        return Engine(onnx_runner(bundle), SIGNATURE)

    engine = Engine(Rounded(bundle, 1e-3), SIGNATURE)
    folder = tmp_path / FOLDER
    first = verified(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA L4")
    assert 0.999 < first.cosine_min < 0.99999
    assert first.consistency_min is not None
    assert first.consistency_min > 0.999
    assert (first.images, first.batch_sizes, first.gate_cosine_min) == (32, (1, 7, 32), 0.999)
    assert verified(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA L4") == first
    assert len(measured) == 1
    verified(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA T4")
    assert len(measured) == 2
    (record,) = folder.iterdir()
    record.write_text(record.read_text()[:20])  # as a power loss leaves it
    verified(UNVERIFIED, engine, reference, folder, "tensorrt 11.4.0 on NVIDIA T4")
    assert len(measured) == 3


def test_an_engine_that_departs_is_refused_and_not_remembered(bundle: Path, tmp_path: Path) -> None:
    engine = Engine(Rounded(bundle, 0.05), SIGNATURE)
    with pytest.raises(StartupError, match=r"departs from the bundle's float32 file: min cosine 0\.9.*gate is 0\.999"):
        verified(UNVERIFIED, engine, lambda: Engine(onnx_runner(bundle), SIGNATURE), tmp_path / FOLDER, "here")
    assert not (tmp_path / FOLDER).exists()


def test_a_collapsed_network_proves_nothing(bundle: Path) -> None:
    class Constant(Rounded):
        def run(self, crops: np.ndarray) -> np.ndarray:
            return np.tile(np.eye(1, DIM, dtype=np.float32), (len(crops), 1))

    engine = Engine(Constant(bundle, 0), SIGNATURE)
    with pytest.raises(StartupError, match="nearly one vector"):
        compare(engine, engine, "float32")


def test_the_generated_figures_are_always_the_same_and_each_another() -> None:
    first, again = pictures(8, 96, 48), pictures(8, 96, 48)
    np.testing.assert_array_equal(first, again)
    flat = first.reshape(8, -1).astype(np.float64)
    assert np.abs(np.corrcoef(flat)[~np.eye(8, dtype=bool)]).max() < 0.95
