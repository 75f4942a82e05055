"""`pan-export verify` measures a bundle again; `pan-export diff` names the first tensor that differs."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bundle import EngineFile, Parity, load_bundle, sha256_file
from export.verification import _gates_at_export
from tests.export.bundles.test_exporter import reuse
from tests.export.command import pan_export
from tests.export.conftest import Traced
from training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(checkpoint: Path, pan_c: Traced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with INT8 that the command wrote. float16 fails its gate, so it is left out."""
    out = tmp_path_factory.mktemp("verify") / "bundle"
    engines = [word for name in ("onnx:int8", "onnx:float16") for word in ("--engine", name)]
    gates = ("--gate", "int8:0.9", "--gate", "float16:0.9999999999")
    small = ("--images", 16, "--calibration", 16, "--json")
    with pytest.MonkeyPatch.context() as patch:
        reuse(pan_c, patch)
        done = pan_export("onnx", checkpoint, out, *engines, *gates, *small)
    assert done.returncode == 1
    assert done.stderr == "error: left out of the bundle: onnx:float16\n"
    printed = json.loads(done.stdout)
    assert "the gate is 1 - 1.0e-10" in printed["refused"]["onnx:float16"]
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "model.float32.onnx", "model.int8.onnx"]
    return out


def scale_weight(path: Path, name: str, factor: float) -> onnx.ModelProto:
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
    done = pan_export("verify", folder, "--images", 16, "--checkpoint", checkpoint, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    verdicts = {verdict["engine"]: verdict for verdict in json.loads(done.stdout)}
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == {
        "onnx float32": "pass",
        "onnx int8": "pass",
    }
    measured = verdicts["onnx int8"]["agreement"]["cosine_by_batch"]["1"]["min"]
    assert measured == pytest.approx(recorded["int8"].cosine_min, abs=1e-3)


def test_the_consistency_gate_of_verify_is_no_tighter_than_at_export() -> None:
    parity = Parity(
        data="none", images=1, batch_sizes=(1,), cosine_min=0.9999, cosine_mean=0.9999, gate_cosine_min=0.999,
        consistency_min=0.9995,
    )  # fmt: skip
    entry = EngineFile(name="a.onnx", kind="onnx", precision="float16", bytes=1, sha256="0" * 64, parity=parity)
    assert _gates_at_export(entry).min_consistency == pytest.approx(0.999)
    close = entry.model_copy(update={"parity": parity.model_copy(update={"consistency_min": 1.0})})
    assert _gates_at_export(close).min_consistency == 0.9999


def test_an_engine_of_other_weights_fails(folder: Path, tmp_path: Path) -> None:
    """Hash and manifest agree with the file, so only the measurement shows that it is another network."""
    copy = shutil.copytree(folder, tmp_path / "bundle")
    model = scale_weight(copy / "model.int8.onnx", "network.embedding.norm.weight", -1)
    onnx.save_model(model, copy / "model.int8.onnx")
    manifest = json.loads((copy / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["precision"] == "int8":
            path = copy / entry["name"]
            entry |= {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = pan_export("verify", copy, "--images", 8)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "failed on this machine: onnx int8; export the checkpoint again" in done.stderr


def test_a_checkpoint_of_another_model_is_refused(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    network, card = load_checkpoint(checkpoint)
    network.backbone.conv1.weight.data *= 1.001
    save_checkpoint(tmp_path / "other.safetensors", network, card)
    done = pan_export("verify", folder, "--images", 8, "--checkpoint", tmp_path / "other.safetensors")
    assert done.returncode == 1
    assert "fingerprints differ" in done.stderr


def test_the_first_tensor_that_differs_is_named(folder: Path, pan_c: Traced, tmp_path: Path) -> None:
    changed = "network.backbone.layer2.0.conv2.weight"
    onnx.save_model(scale_weight(pan_c.path, changed, -1), tmp_path / "changed.onnx")
    at = next(node.output[0] for node in pan_c.model.graph.node if changed in node.input)
    done = pan_export("diff", folder, tmp_path / "changed.onnx", "--images", 2)
    assert done.returncode == 0
    assert f"first difference: {at}, output of Conv" in done.stdout

    done = pan_export("diff", folder, folder / "model.float32.onnx", "--images", 2, "--json")
    assert json.loads(done.stdout)["first"] is None
    found = json.loads(pan_export("diff", folder, folder / "model.int8.onnx", "--images", 2, "--json").stdout)
    cosines = {tensor["tensor"]: tensor["cosine"] for tensor in found["tensors"]}
    assert len(cosines) > 50
    assert cosines[found["first"]] < 0.999 <= min(list(cosines.values())[: list(cosines).index(found["first"])])
    done = pan_export("diff", folder, tmp_path / "nothing.onnx")
    assert done.returncode == 1
    assert "give an .onnx file, a bundle or a checkpoint" in done.stderr
