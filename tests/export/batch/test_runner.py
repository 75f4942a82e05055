"""A run of a plan: results, failures, kept engines, changed inputs."""

import json

import pytest

from bundle import load_bundle
from export.batch import read_plan, run_batch
from export.errors import PlanError
from tests.export.batch.conftest import IMPOSSIBLE, MODELS, SMALL, Batch, call_directly, times_and_bytes
from tests.export.bundles.test_exporter import everything


def test_a_failed_engine_does_not_stop_the_others_and_is_tried_again(batch: Batch) -> None:
    batch.plan(SMALL + IMPOSSIBLE + "models:\n  - checkpoint: two\n    engines: [onnx:float16]\n  - checkpoint: one\n")
    first = {"two onnx:float32": "pass", "two onnx:float16": "failed", "one onnx:float32": "pass"}
    assert batch.verdicts() == first
    assert [entry.label for entry in load_bundle(batch.out / "two").manifest.files] == ["onnx float32"]
    summary = json.loads((batch.out / "summary.json").read_text())
    assert summary["failed"] == ["two onnx:float16"]
    (reason,) = [row["reason"] for row in summary["rows"] if row["verdict"] == "failed"]
    assert "differs from PyTorch: min cosine" in reason
    markdown = (batch.out / "summary.md").read_text()
    assert f"- two onnx:float16: failed: {reason}" in markdown
    assert "| one | model.float32.onnx | onnx:float32 | pass |" in markdown
    row = summary["rows"][2]
    assert row["bytes"] == (batch.out / "one/model.float32.onnx").stat().st_size
    assert row["seconds"] > 0
    assert row["milliseconds"] > 0
    assert row["parity"]["cosine_min"] > 0.99999

    before = {name: times_and_bytes(batch.out / name) for name in ("one", "two")}
    assert batch.verdicts() == {**first, "two onnx:float32": "kept", "one onnx:float32": "kept"}
    assert {name: times_and_bytes(batch.out / name) for name in ("one", "two")} == before
    assert any(step.startswith("two: comparing onnx:float16") for step in batch.steps)
    assert not any(step.startswith("one") for step in batch.steps)


def test_a_bundle_follows_its_plan_and_its_checkpoint(batch: Batch) -> None:
    batch.plan(SMALL + MODELS)
    assert set(batch.verdicts().values()) == {"pass"}
    one, two = times_and_bytes(batch.out / "one"), times_and_bytes(batch.out / "two")
    assert set(batch.verdicts().values()) == {"kept"}
    assert batch.steps == []
    assert (times_and_bytes(batch.out / "one"), times_and_bytes(batch.out / "two")) == (one, two)

    # a stricter gate: the engine that fails it is removed from the bundle
    batch.plan(SMALL + IMPOSSIBLE + MODELS)
    assert batch.verdicts()["two onnx:float16"] == "failed"
    assert sorted(everything(batch.out / "two")) == ["manifest.json", "model.float32.onnx"]
    assert load_bundle(batch.out / "two").manifest.files[0].precision == "float32"

    # the old gate: the engine is added, and no other file is written
    batch.plan(SMALL + MODELS)
    assert batch.verdicts() == {"one onnx:float32": "kept", "two onnx:float32": "kept", "two onnx:float16": "pass"}
    now = times_and_bytes(batch.out / "two")
    assert now["model.float32.onnx"] == two["model.float32.onnx"]
    assert now["model.float16.onnx"][1] == two["model.float16.onnx"][1]

    # other weights: that bundle is made again, the other one is kept
    old = load_bundle(batch.out / "two").manifest.model.fingerprint
    batch.change_weights("two")
    assert batch.verdicts() == {"one onnx:float32": "kept", "two onnx:float32": "pass", "two onnx:float16": "pass"}
    assert load_bundle(batch.out / "two").manifest.model.fingerprint != old

    # a damaged file: its bundle is made again
    path = batch.out / "one/model.float32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert batch.verdicts() == {"one onnx:float32": "pass", "two onnx:float32": "kept", "two onnx:float16": "kept"}
    assert times_and_bytes(batch.out / "one")["model.float32.onnx"][1] == one["model.float32.onnx"][1]
    assert not list(batch.out.glob(".*"))


def test_a_model_that_cannot_be_exported_fails_alone(batch: Batch) -> None:
    (batch.folder / "two/model.safetensors").write_bytes(b"rubbish")
    (batch.folder / "out/three").mkdir(parents=True)
    (batch.folder / "out/three/thesis.txt").write_text("years of work")
    batch.plan(SMALL + MODELS + "  - checkpoint: one\n    name: three\n  - checkpoint: nowhere\n")
    for _ in range(2):
        rows = {row.bundle: row for row in batch.run()}
        assert rows["one"].verdict == "pass"
        assert {rows[name].verdict for name in ("two", "three", "nowhere")} == {"failed"}
        assert "is not a complete safetensors file" in str(rows["two"].reason)
        assert "exists and does not belong to this batch" in str(rows["three"].reason)
        assert "there is no checkpoint at" in str(rows["nowhere"].reason)
    assert everything(batch.out / "three") == {"thesis.txt": b"years of work"}


def test_each_batch_profile_gets_a_bundle_and_common_parts_are_made_once(batch: Batch) -> None:
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

    # another profile replaces the TensorRT engine and keeps the others
    before = times_and_bytes(batch.out / "one-1-2-4")["model.float16.onnx"]
    batch.plan(
        SMALL + engines.replace("[1:1:2, 1:2:4]", "1:2:8") + "models:\n  - checkpoint: one\n    name: one-1-2-4\n"
    )
    verdicts = batch.verdicts()
    assert verdicts["one-1-2-4 onnx:float16"] == "kept"
    assert verdicts["one-1-2-4 tensorrt_rtx:float16"] == "unverified"
    assert load_bundle(batch.out / "one-1-2-4").file("tensorrt_rtx", "float16")[0].batch.max == 8
    assert times_and_bytes(batch.out / "one-1-2-4")["model.float16.onnx"] == before


def test_a_second_batch_in_the_same_folder_is_refused(batch: Batch) -> None:
    batch.plan(SMALL + MODELS)
    out, jobs = read_plan(batch.folder / "plan.yaml")
    running = run_batch(out, jobs, call=call_directly)
    next(running)
    with pytest.raises(PlanError, match="another batch is writing to"):
        next(run_batch(out, jobs, call=call_directly))
    running.close()
