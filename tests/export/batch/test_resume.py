"""A dry run, and a run after one that was killed."""

import json
import signal
import subprocess
import time
from collections.abc import Callable

from typer.testing import CliRunner

from bundle import load_bundle
from export.cli.app import app
from tests.export.batch.conftest import IMPOSSIBLE, MODELS, SMALL, Batch, times_and_bytes
from tests.export.bundles.test_exporter import PAN_EXPORT, everything


def test_a_dry_run_writes_nothing(batch: Batch) -> None:
    batch.plan(SMALL + IMPOSSIBLE + MODELS)
    before = everything(batch.folder)
    shown = CliRunner().invoke(app, ["batch", str(batch.folder / "plan.yaml"), "--dry-run"])
    assert shown.exit_code == 0
    assert shown.output.count("to make") == 3
    assert everything(batch.folder) == before
    assert not batch.out.exists()

    batch.run()
    batch.change_weights("one")
    batch.plan(SMALL + IMPOSSIBLE + MODELS + "  - checkpoint: nowhere\n  - {checkpoint: one, name: three}\n")
    (batch.out / "three").mkdir()
    before = everything(batch.folder)
    actions = batch.actions()
    assert actions[:3] == ["inputs changed", "kept", "failed before"]
    assert actions[3].startswith("fails: there is no checkpoint")
    assert "exists and does not belong to this batch" in actions[4]
    assert everything(batch.folder) == before


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_after_a_killed_run_no_process_or_draft_stays_and_the_next_run_continues(batch: Batch) -> None:
    batch.plan(SMALL + "models:\n  - checkpoint: one\n")
    batch.run()
    one = times_and_bytes(batch.out / "one")
    batch.plan(SMALL + IMPOSSIBLE + MODELS)
    command = [PAN_EXPORT, "batch", batch.folder / "plan.yaml", "--json"]

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: any(batch.out.glob(".two.*")) or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    eventually(lambda: not any(batch.out.glob(".two.*")))  # the worker stopped and removed its draft
    assert not (batch.out / "two").exists()
    actions = batch.actions()
    assert actions == ["kept", "to make", "to make"]

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == (
        "error: 1 of 3 engines failed; fix the cause and run the command again; finished engines are kept\n"
    )
    assert json.loads(again.stdout)["failed"] == ["two onnx:float16"]
    rows = [(row["engine"], row["verdict"], row["kept"]) for row in json.loads(again.stdout)["rows"]]
    assert rows == [("onnx:float32", "pass", True), ("onnx:float32", "pass", False), ("onnx:float16", "failed", False)]
    assert times_and_bytes(batch.out / "one") == one
    assert [entry.label for entry in load_bundle(batch.out / "two").manifest.files] == ["onnx float32"]
