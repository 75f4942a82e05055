"""The service runs the requested engine or does not start."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from tests.support.bundles import change, write_bundle
from tests.support.servers import pan_serve

Launch = Callable[..., Served]


def test_the_service_runs_openvino_on_request(launch: Launch, tmp_path: Path) -> None:
    folder = change(write_bundle(tmp_path / "b"), {}, {"kind": "openvino", "batch": {"max": 8}})
    server = launch("--engine", "openvino", bundle=folder)
    model = httpx.get(f"{server.url}/v1/model").json()
    assert [model[name] for name in ("engine", "device", "precision", "max_batch")] == ["openvino", "cpu", "float32", 8]
    assert model["reason"] == "openvino on cpu, float32, as requested"
    assert model["parity"]["gate_cosine_min"] == 0.99999
    log = (tmp_path / "log").read_text()
    assert "openvino on cpu, float32, as requested" in log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], "onnxruntime on cuda (onnxruntime"),
        (["--engine", "tensorrt_rtx"], "tensorrt_rtx on cuda ("),
        (
            ["--engine", "openvino", "--precision", "int8"],
            "the bundle has no openvino int8 file; it holds onnx float32",
        ),
    ],
)
def test_the_service_does_not_start_with_another_engine_than_requested(
    tmp_path: Path, options: list[str], message: str
) -> None:
    built_for = {"library_version": "1.7.1.116", "compute_capability": "8.9"}
    folder = change(
        write_bundle(tmp_path / "b"), {}, {"kind": "tensorrt_rtx", "precision": "float16", "built_for": built_for}
    )
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    done = pan_serve("run", "--bundle", str(folder), "--data", str(tmp_path / "data"), "--port", "0", *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
