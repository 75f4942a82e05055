"""The curl session in README, run by bash against a real server."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common.served import Served
from pan_reid import Client

README = Path(__file__).parents[2] / "README.md"
SMALLEST = ("--test-identities", "2", "--cameras", "2", "--crops-per-camera", "2", "--height", "32", "--width", "16")


def session(word: str) -> str:
    """The indented block of README with this word."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", README.read_text(), re.MULTILINE)
    (found,) = (block for block in blocks if word in block)
    return "".join(line[4:] for line in found.strip("\n").splitlines(keepends=True))


def documents(text: str) -> Iterator[Any]:
    """The JSON documents in a text."""
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


def test_the_curl_session_of_readme_works(launch: Callable[..., Served], tmp_path: Path) -> None:
    synth = next(line for line in session("pan-train synth").splitlines() if line.startswith("pan-train synth"))
    program, *arguments = shlex.split(synth.replace("runs/crops", str(tmp_path / "crops")))
    subprocess.run([Path(sys.executable).parent / program, *arguments, *SMALLEST], check=True, capture_output=True)
    server = launch()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session("curl -sf")],
        env={**os.environ, "URL": server.url, "CROPS": str(tmp_path / "crops"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    made, enrolled, found, receipt = documents(done.stdout)
    assert (made["name"], made["retention_days"]) == ("hall", 30)
    assert (enrolled["enrolled"], enrolled["failed"]) == (2, 0)
    assert {person["person_id"] for person in found["persons"]} == {"161", "162"}
    assert (receipt["person_id"], receipt["entries"], receipt["overwritten"]) == ("161", 1, True)
    with Client(server.url) as client:
        assert [entry.person_id for entry in client.entries("hall")] == ["162"]
