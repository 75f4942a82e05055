"""A bundle measured again, and the first tensor that departs, through the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bundle import EngineFile, Parity, load_bundle
from export.verification import _recorded
from tests.export.bundles.test_exporter import PAN_EXPORT, run
from tests.export.conftest import Traced
from training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with INT8 and float16, as the command line writes it; one engine asks too much and is left out."""
    out = tmp_path_factory.mktemp("verify") / "bundle"
    engines = [word for name in ("onnx:int8", "onnx:float16") for word in ("--engine", name)]
    gates = ("--gate", "int8:0.9", "--gate", "float16:0.9999999999")
    small = ("--images", 16, "--calibration", 16, "--json")
    done = run(PAN_EXPORT, "onnx", checkpoint, out, *engines, *gates, *small)
    assert done.returncode == 1
    assert done.stderr == "error: left out of the bundle: onnx:float16\n"
    printed = json.loads(done.stdout)
    assert "the gate is 1 - 1.0e-10" in printed["refused"]["onnx:float16"]
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "model.float32.onnx", "model.int8.onnx"]
    return out


def nudge(path: Path, name: str, factor: float) -> onnx.ModelProto:
    """The graph with one weight scaled."""
    model = onnx.load(path)
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), name))
    return model


def test_a_bundle_passes_its_own_gates_again(folder: Path, checkpoint: Path) -> None:
    recorded = {entry.precision: entry.parity for entry in load_bundle(folder).manifest.files}
    assert set(recorded) == {"float32", "int8"}
    assert recorded["int8"] is not None
    assert (recorded["int8"].gate_cosine_min, recorded["int8"].gate_mAP_loss) == (0.9, None)
    done = run(PAN_EXPORT, "verify", folder, "--images", 16, "--checkpoint", checkpoint, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    verdicts = {verdict["engine"]: verdict for verdict in json.loads(done.stdout)}
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == {
        "onnx float32": "pass",
        "onnx int8": "pass",
    }
    seen = verdicts["onnx int8"]["agreement"]["cosine_by_batch"]["1"]["min"]
    assert seen == pytest.approx(recorded["int8"].cosine_min, abs=1e-3)


def test_an_engine_that_was_let_pass_with_another_consistency_is_not_refused_for_it() -> None:
    parity = Parity(
        data="none", images=1, batch_sizes=(1,), cosine_min=0.9999, cosine_mean=0.9999, gate_cosine_min=0.999,
        consistency_min=0.9995,
    )  # fmt: skip
    entry = EngineFile(name="a.onnx", kind="onnx", precision="float16", bytes=1, sha256="0" * 64, parity=parity)
    assert _recorded(entry).min_consistency == pytest.approx(0.999)
    close = entry.model_copy(update={"parity": parity.model_copy(update={"consistency_min": 1.0})})
    assert _recorded(close).min_consistency == 0.9999


def test_an_engine_of_other_weights_fails_on_the_users_machine(folder: Path, tmp_path: Path) -> None:
    """Hash and manifest agree with the file; only measuring shows that it is another network."""
    copy = shutil.copytree(folder, tmp_path / "bundle")
    model = nudge(copy / "model.int8.onnx", "network.embedding.norm.weight", -1)
    onnx.save_model(model, copy / "model.int8.onnx")
    manifest = json.loads((copy / "manifest.json").read_text())
    from bundle import sha256_file

    for entry in manifest["files"]:
        if entry["precision"] == "int8":
            path = copy / entry["name"]
            entry |= {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = run(PAN_EXPORT, "verify", copy, "--images", 8)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "failed on this machine: onnx int8; export the checkpoint again" in done.stderr


def test_another_checkpoint_is_no_reference(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    network, card = load_checkpoint(checkpoint)
    network.backbone.conv1.weight.data *= 1.001
    save_checkpoint(tmp_path / "other.safetensors", network, card)
    done = run(PAN_EXPORT, "verify", folder, "--images", 8, "--checkpoint", tmp_path / "other.safetensors")
    assert done.returncode == 1
    assert "fingerprints differ" in done.stderr


def test_the_first_tensor_that_departs_is_named(folder: Path, pan_c: Traced, tmp_path: Path) -> None:
    changed = "network.backbone.layer2.0.conv2.weight"
    onnx.save_model(nudge(pan_c.path, changed, -1), tmp_path / "changed.onnx")
    at = next(node.output[0] for node in pan_c.model.graph.node if changed in node.input)
    done = run(PAN_EXPORT, "diff", folder, tmp_path / "changed.onnx", "--images", 2)
    assert done.returncode == 0
    assert f"first difference: {at}, output of Conv" in done.stdout

    done = run(PAN_EXPORT, "diff", folder, folder / "model.float32.onnx", "--images", 2, "--json")
    assert json.loads(done.stdout)["first"] is None
    found = json.loads(run(PAN_EXPORT, "diff", folder, folder / "model.int8.onnx", "--images", 2, "--json").stdout)
    cosines = {tensor["tensor"]: tensor["cosine"] for tensor in found["tensors"]}
    assert len(cosines) > 50
    assert cosines[found["first"]] < 0.999 <= min(list(cosines.values())[: list(cosines).index(found["first"])])
    done = run(PAN_EXPORT, "diff", folder, tmp_path / "nothing.onnx")
    assert done.returncode == 1
    assert "give an .onnx file, a bundle or a checkpoint" in done.stderr
