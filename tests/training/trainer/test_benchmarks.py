"""The benchmarks that train, by their real command on tiny crops: the members of their output in the documents."""

import json
import subprocess
import sys
from typing import Any

import pytest


def benchmark(name: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--threads", "1", "--rounds", "1", "--json"],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_training_speed_compares_our_loop_with_the_plain_one() -> None:
    size = ["--height", "48", "--width", "16", "--identities", "2"]
    found = benchmark("training.speed", *size, "--loop", "global_pool")
    assert [each["loop"] for each in found["loops"]] == ["plain", "global_pool"]
    assert found["loops"][0]["ratio"] == found["loops"][0]["cpu_ratio"] == 1
    for each in found["loops"]:
        assert each["images_per_s"] > 0
        assert 0 <= each["waits"] < 1
        assert 0 <= each["waits_first_epoch"] < 1
    assert found["loader"].keys() == {"first_epoch", "cached"}
    assert found["batch"] == 8


def test_the_cost_of_attention_is_measured_in_training_too() -> None:
    size = ["--width", "0.125", "--height-pixels", "48", "--width-pixels", "32", "--batch", "4"]
    found = benchmark("training.pam_cost", "--only", "training", *size)
    assert found["milliseconds_a_crop"].keys() == {"baseline training", "pan_c training"}
    assert found["ratio"]["training"].keys() == {"wall", "cpu"}


def test_the_cost_of_every_option_is_measured_against_short() -> None:
    size = ["--width", "0.125", "--height-pixels", "48", "--width-pixels", "32", "--batch", "4"]
    found = benchmark("training.option_cost", *size)
    assert found["cost"]["short"] == 1
    assert {"IBN-a", "GeM branch", "strong"} <= found["cost"].keys()


def test_an_unknown_loop_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AssertionError, match="plain bfloat16"):
        benchmark("training.speed", "--loop", "fastreid")


def test_engines_are_timed_against_the_peak() -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    size = ["--variant", "pan_c", "--width", "0.125", "--height-pixels", "48", "--width-pixels", "32", "--batch", "2"]
    found = benchmark("inference.engines", *size, "--engine", "OpenVINO int8")
    assert found["peak_gflops"].keys() == {"float32", "int8", "bfloat16"}
    assert [row["engine"] for row in found["rows"]] == ["PyTorch eager", "ONNX Runtime float32", "OpenVINO int8"]
    assert found["rows"][0]["times_eager"] == found["rows"][1]["times_float32"] == 1
    assert all(row["milliseconds"] > 0 and row["per_cent_of_peak"] > 0 for row in found["rows"])
