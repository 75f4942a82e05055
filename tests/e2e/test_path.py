"""From crops to answers: every stage by its real command, a real server, and the figures compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from bundle import load_bundle
from demo.__main__ import free_port, service
from training.checkpoint import load_checkpoint

BIN = Path(sys.executable).parent


def run(name: str, *arguments: str | Path) -> str:
    done = subprocess.run([BIN / name, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops, a run and a bundle, each made by its command."""
    root = tmp_path_factory.mktemp("path")
    synth = ["--train-identities", "16", "--test-identities", "8", "--cameras", "3", "--crops-per-camera", "2"]
    run("pan-train", "synth", root / "crops", *synth, "--height", "64", "--width", "32")
    small = ["model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "optim.iterations=40"]
    run("pan-train", "run", "--out", root / "run", f"data.path={root / 'crops'}", "preset=short", *small, "threads=1")
    run("pan-export", "onnx", root / "run", root / "bundle", "--data", root / "crops")
    return root


def test_rest_answers_score_as_pytorch_does(built: Path) -> None:
    crops = built / "crops"
    with service(built / "bundle", built / "state", free_port(0)) as url:
        run("pan-reid", "enrol", crops / "bounding_box_test", "--gallery", "g", "--url", url)
        arguments = [str(crops), "--gallery", "g", "--url", url, "--checkpoint", str(built / "run"), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.service.rest_quality", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        query = next((crops / "query").iterdir())
        hits = json.loads(run("pan-reid", "search", query, "--gallery", "g", "--url", url, "--json"))["hits"]
    assert found["rest"]["queries"] == found["offline"]["queries"] == 24
    assert found["rest"]["mAP"] == pytest.approx(found["offline"]["mAP"], abs=0.1)
    assert len(hits) == 10
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_the_bundle_contains_the_measurements_of_the_run(built: Path) -> None:
    manifest, (_, card) = load_bundle(built / "bundle").manifest, load_checkpoint(built / "run")
    assert manifest.evaluation == card.evaluation is not None
    assert manifest.calibration == card.calibration is not None
    assert manifest.provenance == card.provenance


def test_a_restarted_service_answers_the_same(built: Path) -> None:
    crops = built / "crops"
    image = next((crops / "query").iterdir())
    answers = []
    with service(built / "bundle", built / "state2", free_port(0)) as url:
        run("pan-reid", "enrol", crops / "bounding_box_test", "--gallery", "g", "--url", url)
        answers.append(run("pan-reid", "search", image, "--gallery", "g", "--url", url, "--json"))
    with service(built / "bundle", built / "state2", free_port(0)) as url:
        answers.append(run("pan-reid", "search", image, "--gallery", "g", "--url", url, "--json"))
    assert answers[0] == answers[1]


def _children(group: int) -> list[str]:
    """Command lines of the processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc to list processes")
def test_ctrl_c_during_the_demo_leaves_nothing_running(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo", "--out", str(tmp_path / "demo")],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(_children(demo.pid)) < 2:  # the demo and the command it has begun
        assert demo.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(demo.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert demo.wait(60) == 130
    for _ in range(50):
        if not _children(demo.pid):
            break
        time.sleep(0.1)
    assert _children(demo.pid) == []


def test_the_service_of_a_with_block_is_gone_after_it(built: Path) -> None:
    port = free_port(0)
    with service(built / "bundle", built / "state3", port) as url:
        assert httpx.get(f"{url}/healthz").is_success
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")
