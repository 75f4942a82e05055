"""From a checkpoint to a bundle. A failed export changes nothing on disk."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import export.bundles.exporter
from bundle import BundleFileError, load_bundle
from export.bundles.exporter import export_checkpoint
from export.bundles.targets import MeasurementSettings
from export.bundles.writer import new_bundle
from export.errors import ParityError, TargetError
from tests.export.command import pan_export
from tests.export.conftest import Traced
from training.checkpoint import load_checkpoint, save_checkpoint

PAN_EXPORT = Path(sys.executable).with_name("pan-export")
PAN_TRAIN = Path(sys.executable).with_name("pan-train")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run([str(word) for word in arguments], capture_output=True, text=True, check=False)


def everything(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files below a folder, hidden ones included."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def reuse(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace tracing, which takes seconds, by the graph of `traced`."""
    monkeypatch.setattr(export.bundles.exporter, "onnx_graph", lambda *_: traced.model)


def test_command_line_from_data_to_bundle(checkpoint: Path, pan_c: Traced, tmp_path: Path) -> None:
    data, out = tmp_path / "people", tmp_path / "bundle"
    small = ("--train-identities", 2, "--test-identities", 3, "--cameras", 2, "--crops-per-camera", 2)
    assert run(PAN_TRAIN, "synth", data, *small, "--workers", 1).returncode == 0

    done = run(PAN_EXPORT, "onnx", checkpoint, out, "--data", data, "--images", 10, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    manifest = load_bundle(out).manifest
    (file,) = manifest.files
    assert printed["files"] == [json.loads(file.model_dump_json())]
    assert printed["milliseconds_a_crop"]["onnx:float32"] > 0
    assert (file.name, file.kind, file.precision) == ("model.float32.onnx", "onnx", "float32")
    assert file.parity is not None
    assert (file.parity.data, file.parity.images, file.parity.batch_sizes) == ("people", 10, (1, 2, 7, 32))
    assert file.parity.cosine_min >= 0.99999
    assert (manifest.model.variant, manifest.model.backbone, manifest.model.parts) == ("pan_c", "resnet18-w0.5", 6)
    assert manifest.model.parameters == sum(weight.numel() for weight in pan_c.network.parameters())
    assert manifest.provenance == pan_c.card.provenance
    # the same checkpoint gives the same bytes in another process
    assert (out / file.name).read_bytes() == pan_c.path.read_bytes()

    again = run(PAN_EXPORT, "onnx", checkpoint, out)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("error: ")
    assert "--overwrite" in again.stderr
    assert again.stderr.count("\n") == 1

    spoilt = bytearray((out / file.name).read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (out / file.name).write_bytes(spoilt)
    with pytest.raises(BundleFileError, match="SHA-256"):
        load_bundle(out)


def test_ctrl_c_leaves_no_file(checkpoint: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [PAN_EXPORT, "onnx", checkpoint, tmp_path / "bundle"],
        stderr=subprocess.PIPE,
        # a test run in the background of a shell ignores Ctrl-C, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not any(tmp_path.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not any(tmp_path.iterdir())


def test_a_graph_of_other_weights_fails_its_gate_and_changes_no_file(
    pan_c: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    network, card = load_checkpoint(checkpoint)
    network.backbone.conv1.weight.data[:8] *= 1.2
    save_checkpoint(tmp_path / "nudged.safetensors", network, card)
    reuse(pan_c, monkeypatch)
    before = everything(tmp_path)
    with pytest.raises(ParityError, match=r"differs from PyTorch: min cosine .* the gate is 1 - 1\.0e-05"):
        export_checkpoint(tmp_path / "nudged.safetensors", tmp_path / "bundle", measuring=MeasurementSettings(images=8))
    assert everything(tmp_path) == before
    assert not (tmp_path / "bundle").exists()

    export_checkpoint(checkpoint, tmp_path / "bundle", measuring=MeasurementSettings(images=8))
    before = everything(tmp_path)
    with pytest.raises(ParityError):
        export_checkpoint(
            tmp_path / "nudged.safetensors",
            tmp_path / "bundle",
            measuring=MeasurementSettings(images=8),
            overwrite=True,
        )
    assert everything(tmp_path) == before  # the old bundle stays, and nothing beside it


def test_overwrite_replaces_the_whole_bundle(
    checkpoint: Path, pan_c: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse(pan_c, monkeypatch)
    out = tmp_path / "bundle"
    export_checkpoint(checkpoint, out, measuring=MeasurementSettings(images=4))
    first = load_bundle(out).manifest
    (out / "of-the-old-one").touch()
    with pytest.raises(TargetError, match="--overwrite"):
        export_checkpoint(checkpoint, out, measuring=MeasurementSettings(images=4))
    export_checkpoint(checkpoint, out, measuring=MeasurementSettings(images=6), overwrite=True)
    second = load_bundle(out).manifest
    assert second.files[0].parity is not None
    assert second.files[0].parity.images == 6
    assert second.model == first.model
    assert sorted(everything(tmp_path)) == ["bundle/manifest.json", "bundle/model.float32.onnx"]


def test_a_folder_that_is_not_a_bundle_is_never_replaced(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TargetError, match="is not a bundle"):
        export_checkpoint(checkpoint, tmp_path, overwrite=True)
    assert everything(tmp_path) == {"thesis.txt": b"years of work"}


def test_an_invalid_draft_is_not_published(tmp_path: Path) -> None:
    def write() -> None:
        with new_bundle(tmp_path / "bundle") as draft:
            (draft / "model.float32.onnx").touch()  # and no manifest

    with pytest.raises(Exception, match=r"has no manifest\.json"):
        write()
    assert not any(tmp_path.iterdir())


def test_a_missing_checkpoint_is_a_one_line_error(tmp_path: Path) -> None:
    done = pan_export("onnx", tmp_path / "nowhere.safetensors", tmp_path / "bundle")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no checkpoint at ")
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())
