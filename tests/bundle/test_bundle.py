"""The contract: a manifest that says too much or too little is refused, and so is a file it does not describe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import (
    BundleFileError,
    InputSpec,
    Manifest,
    ManifestError,
    fingerprint,
    load_bundle,
    save_manifest,
    sha256_file,
)
from tests.support.bundles import write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def edited(folder: Path, **changes: Any) -> Path:
    """Change members of manifest.json; a dotted path goes inside, ... as the value removes."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = manifest
        for parent in parents:
            place = place[int(parent) if parent.isdigit() else parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(manifest))
    return folder


def test_a_bundle_is_read_as_it_was_written(folder: Path) -> None:
    bundle = load_bundle(folder)
    entry, path = bundle.file("onnx", "float32")
    assert path == folder / "model.onnx"
    assert (entry.bytes, entry.sha256) == (path.stat().st_size, sha256_file(path))
    save_manifest(folder, bundle.manifest)
    assert load_bundle(folder).manifest == bundle.manifest
    assert sorted(item.name for item in folder.iterdir()) == ["manifest.json", "model.onnx"]


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"thresholds": {}},
        {"model__parts_": 3},
        {"model": ...},
        {"files": []},
        {"output__dim": 32},
        {"output__normalised": False},
        {"input__colour": "BGR"},
        {"input__height": 0},
        {"model__fingerprint": "abc"},
        {"files__0__precision": "int4"},
        {"files__0__name": "../model.onnx"},
        {"files__0__name": "/etc/passwd"},
        {"files__0__name": "manifest.json"},
        {"files__0__parity": ...},
        {"files__0__parity__cosine_min": 1.5},
    ],
    ids=str,
)
def test_a_manifest_that_is_not_this_schema_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="export the checkpoint again"):
        load_bundle(edited(folder, **changes))


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    entry = json.loads((folder / "manifest.json").read_text())["files"][0]
    with pytest.raises(ManifestError, match="two files"):
        load_bundle(edited(folder, files=[entry, {**entry, "precision": "int8", "sha256": "0" * 64}]))


def test_two_entries_of_one_kind_and_precision_are_refused(folder: Path) -> None:
    entry = json.loads((folder / "manifest.json").read_text())["files"][0]
    with pytest.raises(ManifestError, match="two entries"):
        load_bundle(edited(folder, files=[entry, entry]))


def test_openvino_may_read_the_file_of_onnx_runtime(folder: Path) -> None:
    entry = json.loads((folder / "manifest.json").read_text())["files"][0]
    bundle = load_bundle(edited(folder, files=[entry, {**entry, "kind": "openvino", "precision": "bfloat16"}]))
    assert bundle.file("openvino", "bfloat16")[1] == bundle.file("onnx", "float32")[1]
    with pytest.raises(BundleFileError, match="holds: onnx float32, openvino bfloat16"):
        bundle.file("onnx", "float32", "explain")


def test_only_a_tensorrt_engine_may_be_unverified_and_it_names_its_target(folder: Path) -> None:
    entry = json.loads((folder / "manifest.json").read_text())["files"][0]
    built_for = {"library_version": "11.4.0", "gpu": "NVIDIA L4", "compute_capability": "8.9"}
    engine = {**entry, "kind": "tensorrt", "precision": "float16", "parity": None, "built_for": built_for}
    bundle = load_bundle(edited(folder, files=[entry, engine]))
    assert bundle.file("tensorrt", "float16")[0].parity is None
    for wrong in ({**engine, "kind": "onnx", "built_for": None}, {**engine, "built_for": None}):
        with pytest.raises(ManifestError, match="TensorRT"):
            load_bundle(edited(folder, files=[entry, wrong]))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ManifestError):
        load_bundle(folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="pan-export onnx"):
        load_bundle(tmp_path)


def test_a_file_that_is_missing_or_changed_is_refused(folder: Path) -> None:
    path = folder / "model.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(BundleFileError, match="copy the whole bundle again"):
        load_bundle(folder)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleFileError, match="SHA-256 differs"):
        load_bundle(folder)
    path.unlink()
    with pytest.raises(BundleFileError, match="missing"):
        load_bundle(folder)


def test_a_missing_kind_or_precision_is_named_with_the_available_ones(folder: Path) -> None:
    with pytest.raises(BundleFileError, match="no tensorrt float16 file; it holds: onnx float32"):
        load_bundle(folder).file("tensorrt", "float16")


def test_a_manifest_is_replaced_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load_bundle(folder).manifest

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save_manifest(folder, Manifest.model_validate({**manifest.model_dump(), "calibration": None}))
    monkeypatch.undo()
    assert load_bundle(folder).manifest == manifest


WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float32)}
SPEC = InputSpec(height=384, width=128)


def test_the_fingerprint_does_not_depend_on_order_or_memory_layout() -> None:
    reordered = {"b": WEIGHTS["b"], "a": np.asfortranarray(WEIGHTS["a"])}
    assert fingerprint(reordered, SPEC) == fingerprint(WEIGHTS, SPEC)


@pytest.mark.parametrize(
    ("weights", "spec"),
    [
        ({**WEIGHTS, "b": np.array([0, 0, 1e-30], np.float32)}, SPEC),
        ({**WEIGHTS, "a": WEIGHTS["a"].reshape(3, 2)}, SPEC),
        ({**WEIGHTS, "b": np.zeros(3, np.int32)}, SPEC),
        ({"a": WEIGHTS["a"], "c": WEIGHTS["b"]}, SPEC),
        ({"a": WEIGHTS["a"]}, SPEC),
        (WEIGHTS, InputSpec(height=256, width=128)),
        (WEIGHTS, InputSpec(height=384, width=128, mean=(0.5, 0.5, 0.5))),
    ],
)
def test_the_fingerprint_changes_with_anything_that_changes_the_embedding(weights: Any, spec: InputSpec) -> None:
    assert fingerprint(weights, spec) != fingerprint(WEIGHTS, SPEC)
