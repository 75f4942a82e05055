"""OpenVINO against the model's definition, and the precision that it computes in."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.core.errors import StartupError
from service.inference.engine import Engine
from service.inference.engines.openvino import OpenVinoRunner
from service.inference.engines.parity_check import generate_figures
from tests.support.bundles import DIM, HEIGHT, SIGNATURE, WIDTH, reference_embedding


def openvino_engine(folder: Path, precision: str) -> Engine:
    return Engine(OpenVinoRunner(folder / "model.onnx", SIGNATURE, precision), SIGNATURE)  # type: ignore[arg-type]


def capable(capability: str) -> bool:
    import openvino  # after service, which turns its telemetry off

    return capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("count", [1, 7, 33])
def test_openvino_computes_the_vectors_of_the_model(bundle: Path, count: int) -> None:
    crops = np.random.default_rng(count).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    cosine = (openvino_engine(bundle, "float32").embed(crops) * reference_embedding(crops)).sum(1)
    assert cosine.min() > 0.99999


@pytest.mark.skipif(not capable("BF16"), reason="this CPU does not compute in bfloat16")
def test_openvino_computes_in_bfloat16_only_on_request(bundle: Path) -> None:
    crops = generate_figures(16, HEIGHT, WIDTH)
    cosine = (openvino_engine(bundle, "bfloat16").embed(crops) * reference_embedding(crops)).sum(1)
    assert 0.99 < cosine.min() < 0.99999


@pytest.mark.skipif(capable("FP16"), reason="this CPU computes in float16")
def test_a_precision_that_the_cpu_lacks_is_refused(bundle: Path) -> None:
    with pytest.raises(StartupError, match="does not compute in float16"):
        openvino_engine(bundle, "float16")


def test_openvino_sends_no_telemetry(bundle: Path, tmp_path: Path) -> None:
    """The wheel of OpenVINO sends an event on import, and leaves a folder in the home directory."""
    program = """
import sys
sys.addaudithook(lambda event, arguments: event.startswith("socket.") and print(event, arguments))
from pathlib import Path
from service.inference.engines.openvino import OpenVinoRunner
from service.inference.engine import Signature
OpenVinoRunner(Path(sys.argv[1]) / "model.onnx", Signature(*map(int, sys.argv[2:])), "float32")
print("done")
"""
    # OpenVINO sends nothing if CI is set.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
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
