"""Many checkpoints in one go: what is made, kept, tried again and told."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

import export.bundles.exporter
from bundle import load_bundle
from export.batch.plan import read_plan
from export.batch.runner import ResultRow, plan_actions, run_batch
from export.batch.subprocess_runner import run_in_process
from export.batch.summary import write_summary
from export.cli.app import app
from export.errors import ExportError, PlanError
from tests.export.bundles.test_exporter import PAN_EXPORT, everything
from tests.export.conftest import Traced
from training.checkpoint import load_checkpoint, save_checkpoint

STEM = "network.backbone.conv1.weight"
SMALL = "out: out\nimages: 4\ncalibration: 8\n"
IMPOSSIBLE = "gates: {float16: {min_cosine: 1}}\n"
MODELS = "models:\n  - checkpoint: one\n  - checkpoint: two\n    engines: [onnx:float16]\n"


class Batch:
    """A plan in a folder, run inside this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.steps: list[str] = []

    def plan(self, text: str) -> None:
        (self.folder / "plan.yaml").write_text(text)

    def run(self) -> list[ResultRow]:
        self.steps.clear()
        out, jobs = read_plan(self.folder / "plan.yaml")
        results = [row for rows in run_batch(out, jobs, self.steps.append, directly) for row in rows]
        write_summary(out, results)
        return results

    def verdicts(self) -> dict[str, str]:
        """Run, and tell what became of each engine."""
        return {
            f"{each.row.bundle} {each.row.engine}": "kept" if each.kept else each.row.verdict for each in self.run()
        }

    def nudge(self, model: str, factor: float) -> None:
        """Train a model a little more."""
        network, card = load_checkpoint(self.folder / model)
        with torch.no_grad():
            network.backbone.conv1.weight *= factor
        save_checkpoint(self.folder / model / "model.safetensors", network, card)


def directly(function: Callable[..., None], *arguments: Any, emit: Callable[[Any], None]) -> None:
    function(*arguments, emit)


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What must be the same of files that were not written again."""
    return {name: ((folder / name).stat().st_mtime_ns, content) for name, content in everything(folder).items()}


@pytest.fixture
def batch(tmp_path: Path, pan_c: Traced, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Two checkpoints that differ in their stem, and no seconds of tracing."""

    def graph(network: Any, *_: object) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(pan_c.model)
        stem = next(weight for weight in model.graph.initializer if weight.name == STEM)
        norms = [float(weights.backbone.conv1.weight.detach().norm()) for weights in (network, pan_c.network)]
        stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(norms[0] / norms[1]), STEM))
        return model

    monkeypatch.setattr(export.bundles.exporter, "onnx_graph", graph)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_checkpoint(tmp_path / name / "model.safetensors", pan_c.network, pan_c.card)
    batch = Batch(tmp_path)
    batch.nudge("two", 1.01)
    return batch


def test_what_fails_does_not_stop_the_rest_and_is_tried_again(batch: Batch) -> None:
    batch.plan(SMALL + IMPOSSIBLE + "models:\n  - checkpoint: two\n    engines: [onnx:float16]\n  - checkpoint: one\n")
    first = {"two onnx:float32": "pass", "two onnx:float16": "failed", "one onnx:float32": "pass"}
    assert batch.verdicts() == first
    assert [entry.label for entry in load_bundle(batch.out / "two").manifest.files] == ["onnx float32"]
    summary = json.loads((batch.out / "summary.json").read_text())
    assert summary["failed"] == ["two onnx:float16"]
    (reason,) = [row["reason"] for row in summary["rows"] if row["verdict"] == "failed"]
    assert "departs from PyTorch: min cosine" in reason
    markdown = (batch.out / "summary.md").read_text()
    assert f"- two onnx:float16: failed: {reason}" in markdown
    assert "| one | model.float32.onnx | onnx:float32 | pass |" in markdown
    row = summary["rows"][2]
    assert row["bytes"] == (batch.out / "one/model.float32.onnx").stat().st_size
    assert row["seconds"] > 0
    assert row["milliseconds"] > 0
    assert row["parity"]["cosine_min"] > 0.99999

    before = {name: written(batch.out / name) for name in ("one", "two")}
    assert batch.verdicts() == {**first, "two onnx:float32": "kept", "one onnx:float32": "kept"}
    assert {name: written(batch.out / name) for name in ("one", "two")} == before
    assert any(step.startswith("two: comparing onnx:float16") for step in batch.steps)
    assert not any(step.startswith("one") for step in batch.steps)


def test_a_bundle_follows_its_plan_and_its_checkpoint(batch: Batch) -> None:
    batch.plan(SMALL + MODELS)
    assert set(batch.verdicts().values()) == {"pass"}
    one, two = written(batch.out / "one"), written(batch.out / "two")
    assert set(batch.verdicts().values()) == {"kept"}
    assert batch.steps == []
    assert (written(batch.out / "one"), written(batch.out / "two")) == (one, two)

    # an engine that another gate refuses leaves the bundle
    batch.plan(SMALL + IMPOSSIBLE + MODELS)
    assert batch.verdicts()["two onnx:float16"] == "failed"
    assert sorted(everything(batch.out / "two")) == ["manifest.json", "model.float32.onnx"]
    assert load_bundle(batch.out / "two").manifest.files[0].precision == "float32"

    # an engine joins without another one being written
    batch.plan(SMALL + MODELS)
    assert batch.verdicts() == {"one onnx:float32": "kept", "two onnx:float32": "kept", "two onnx:float16": "pass"}
    now = written(batch.out / "two")
    assert now["model.float32.onnx"] == two["model.float32.onnx"]
    assert now["model.float16.onnx"][1] == two["model.float16.onnx"][1]

    # other weights: that bundle again, and no other
    old = load_bundle(batch.out / "two").manifest.model.fingerprint
    batch.nudge("two", 1.01)
    assert batch.verdicts() == {"one onnx:float32": "kept", "two onnx:float32": "pass", "two onnx:float16": "pass"}
    assert load_bundle(batch.out / "two").manifest.model.fingerprint != old

    # a file that is not the one that was exported
    path = batch.out / "one/model.float32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert batch.verdicts() == {"one onnx:float32": "pass", "two onnx:float32": "kept", "two onnx:float16": "kept"}
    assert written(batch.out / "one")["model.float32.onnx"][1] == one["model.float32.onnx"][1]
    assert not list(batch.out.glob(".*"))


def test_a_model_that_cannot_be_exported_at_all(batch: Batch) -> None:
    (batch.folder / "two/model.safetensors").write_bytes(b"rubbish")
    (batch.folder / "out/three").mkdir(parents=True)
    (batch.folder / "out/three/thesis.txt").write_text("years of work")
    batch.plan(SMALL + MODELS + "  - checkpoint: one\n    name: three\n  - checkpoint: nowhere\n")
    for _ in range(2):
        rows = {each.row.bundle: each.row for each in batch.run()}
        assert rows["one"].verdict == "pass"
        assert {rows[name].verdict for name in ("two", "three", "nowhere")} == {"failed"}
        assert "is not a complete safetensors file" in str(rows["two"].reason)
        assert "exists and does not belong to this batch" in str(rows["three"].reason)
        assert "there is no checkpoint at" in str(rows["nowhere"].reason)
    assert everything(batch.out / "three") == {"thesis.txt": b"years of work"}


def test_a_dry_run_writes_nothing(batch: Batch) -> None:
    batch.plan(SMALL + IMPOSSIBLE + MODELS)
    before = everything(batch.folder)
    shown = CliRunner().invoke(app, ["batch", str(batch.folder / "plan.yaml"), "--dry-run"])
    assert shown.exit_code == 0
    assert shown.output.count("to make") == 3
    assert everything(batch.folder) == before
    assert not batch.out.exists()

    batch.run()
    batch.nudge("one", 1.01)
    batch.plan(SMALL + IMPOSSIBLE + MODELS + "  - checkpoint: nowhere\n  - {checkpoint: one, name: three}\n")
    (batch.out / "three").mkdir()
    before = everything(batch.folder)
    actions = [action for *_, action in plan_actions(*read_plan(batch.folder / "plan.yaml"))]
    assert actions[:3] == ["inputs changed", "kept", "failed before"]
    assert actions[3].startswith("fails: there is no checkpoint")
    assert "exists and does not belong to this batch" in actions[4]
    assert everything(batch.folder) == before


def test_each_profile_of_tensorrt_has_a_bundle_and_the_rest_is_made_once(batch: Batch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx (extra [rtx])", exc_type=ImportError)
    engines = "engines: [onnx:float16, tensorrt_rtx:float16]\nbatch: [1:1:2, 1:2:4]\n"
    batch.plan(SMALL + engines + "models:\n  - checkpoint: one\n")
    verdicts = batch.verdicts()
    assert len(verdicts) == 6
    assert {name: verdict for name, verdict in verdicts.items() if verdict != "pass"} == {
        "one-1-1-2 tensorrt_rtx:float16": "unverified",
        "one-1-2-4 tensorrt_rtx:float16": "unverified",
    }
    assert sum(step.endswith("tracing the network") for step in batch.steps) == 1
    profiles = []
    for name in ("one-1-1-2", "one-1-2-4"):
        entry, _ = load_bundle(batch.out / name).file("tensorrt_rtx", "float16")
        profiles.append((entry.batch.min, entry.batch.opt, entry.batch.max))
    assert profiles == [(1, 1, 2), (1, 2, 4)]
    assert set(batch.verdicts().values()) == {"kept"}

    # another profile replaces the engine and leaves the rest
    before = written(batch.out / "one-1-2-4")["model.float16.onnx"]
    batch.plan(
        SMALL + engines.replace("[1:1:2, 1:2:4]", "1:2:8") + "models:\n  - checkpoint: one\n    name: one-1-2-4\n"
    )
    verdicts = batch.verdicts()
    assert verdicts["one-1-2-4 onnx:float16"] == "kept"
    assert verdicts["one-1-2-4 tensorrt_rtx:float16"] == "unverified"
    assert load_bundle(batch.out / "one-1-2-4").file("tensorrt_rtx", "float16")[0].batch.max == 8
    assert written(batch.out / "one-1-2-4")["model.float16.onnx"] == before


def test_two_batches_do_not_write_to_one_folder(batch: Batch) -> None:
    batch.plan(SMALL + MODELS)
    out, jobs = read_plan(batch.folder / "plan.yaml")
    running = run_batch(out, jobs, call=directly)
    next(running)
    with pytest.raises(PlanError, match="another batch is writing to"):
        next(run_batch(out, jobs, call=directly))
    running.close()


# in processes of their own


def _emit_and_die(word: str, emit: Callable[[Any], None]) -> None:
    emit(word)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_crash_is_told_with_its_signal() -> None:
    told: list[str] = []
    with pytest.raises(ExportError, match="the process that made it was ended by SIGKILL"):
        run_in_process(_emit_and_die, "working", emit=told.append)
    assert told == ["working"]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_run_leaves_no_one_behind_and_goes_on(batch: Batch) -> None:
    batch.plan(SMALL + "models:\n  - checkpoint: one\n")
    batch.run()
    one = written(batch.out / "one")
    batch.plan(SMALL + IMPOSSIBLE + MODELS)
    command = [PAN_EXPORT, "batch", batch.folder / "plan.yaml", "--json"]

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: any(batch.out.glob(".two.*")) or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    eventually(lambda: not any(batch.out.glob(".two.*")))  # whoever made it has tidied up
    assert not (batch.out / "two").exists()
    actions = [action for *_, action in plan_actions(*read_plan(batch.folder / "plan.yaml"))]
    assert actions == ["kept", "to make", "to make"]

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == (
        "error: 1 of 3 engines failed; fix the cause and run the command again; finished engines are kept\n"
    )
    assert json.loads(again.stdout)["failed"] == ["two onnx:float16"]
    rows = [(row["engine"], row["verdict"], row["kept"]) for row in json.loads(again.stdout)["rows"]]
    assert rows == [("onnx:float32", "pass", True), ("onnx:float32", "pass", False), ("onnx:float16", "failed", False)]
    assert written(batch.out / "one") == one
    assert [entry.label for entry in load_bundle(batch.out / "two").manifest.files] == ["onnx float32"]
