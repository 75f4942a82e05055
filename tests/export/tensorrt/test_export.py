"""Engines are built and added to a bundle."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundle import (
    BatchProfile,
    load_bundle,
    save_manifest,
    sha256_file,
)
from export.errors import TargetError
from export.onnx.float16 import to_float16
from export.tensorrt.build import parse_engine_precision
from export.tensorrt.export import BuiltEngine, export_tensorrt
from export.tensorrt.library import Library
from tests.export.bundles.test_exporter import everything
from tests.export.command import pan_export
from tests.export.conftest import Traced
from tests.export.tensorrt.conftest import LOOSE, settings

NAME = "model.{}.tensorrt_rtx-{}-{}.engine"


@pytest.fixture(scope="module")
def built(
    clean_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, BuiltEngine], set[str]]:
    """One bundle with an engine of each precision, their results, and the reported steps."""
    folder = Path(shutil.copytree(clean_bundle, tmp_path_factory.mktemp("built") / "bundle"))
    steps: set[str] = set()
    return (
        folder,
        {
            precision: export_tensorrt(
                folder, parse_engine_precision(word), settings("1:8:16"), measuring=LOOSE, step=steps.add
            )
            for word, precision in (("fp32", "float32"), ("fp16", "float16"), ("int8", "int8"))
        },
        steps,
    )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_without_a_gpu_an_engine_is_added_as_unverified(
    built: tuple[Path, dict[str, BuiltEngine], set[str]], rtx: Library, precision: Any
) -> None:
    folder, engines, _ = built
    entry, path = load_bundle(folder).file("tensorrt_rtx", precision)
    assert entry == engines[precision].entry
    assert path.name == NAME.format(precision, rtx.version, "any")
    assert entry.batch == BatchProfile(min=1, opt=8, max=16)
    assert entry.parity is None
    assert engines[precision].unverified == "PyTorch finds no GPU here"
    assert entry.built_for is not None
    assert entry.built_for.library_version == rtx.version
    assert (entry.built_for.gpu, entry.built_for.compute_capability) == (None, None)
    assert path.read_bytes().startswith(b"vtrt")  # the magic tag that its loader expects

    sidecar = json.loads((folder / f"{path.name}.json").read_text())
    assert sidecar["engine"] == json.loads(entry.model_dump_json())
    assert sidecar["engine"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sidecar["fingerprint"] == load_bundle(folder).manifest.model.fingerprint
    assert sidecar["build_seconds"] > 0


def test_engine_sizes_fall_with_precision_and_no_other_file_is_written(
    built: tuple[Path, dict[str, BuiltEngine], set[str]], clean_bundle: Path
) -> None:
    folder, engines, steps = built
    assert engines["float16"].entry.bytes < 0.7 * engines["float32"].entry.bytes
    assert engines["int8"].entry.bytes < 0.95 * engines["float16"].entry.bytes
    assert engines["int8"].graph.float_blocks == "7 of 9"  # INT8 would enlarge the others
    assert engines["float32"].graph.agreement.cosine_min > 0.99999
    assert engines["float16"].graph.agreement.cosine_min > 0.999
    names = {engine.entry.name for engine in engines.values()}
    expected = set(everything(clean_bundle)) | names | {f"{name}.json" for name in names}
    assert set(everything(folder)) == expected
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]  # no timing cache: TensorRT-RTX has none
    assert any(step.startswith("building engine, ") and " of " in step for step in steps)


def test_an_engine_of_the_same_target_is_replaced_only_with_overwrite(
    built: tuple[Path, dict[str, BuiltEngine], set[str]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(built[0], tmp_path / "bundle"))
    before = everything(folder)
    with pytest.raises(TargetError, match=r"already has tensorrt_rtx float32 .* --overwrite"):
        export_tensorrt(folder, "float32", settings(), measuring=LOOSE)
    assert everything(folder) == before
    export_tensorrt(folder, "float32", settings(compute_capability="8.9"), measuring=LOOSE)  # another target
    export_tensorrt(folder, "float32", settings(), measuring=LOOSE, overwrite=True)
    entries = [file for file in load_bundle(folder).manifest.files if file.label == "tensorrt_rtx float32"]
    assert [(file.built_for and file.built_for.compute_capability, file.batch.max) for file in entries] == [
        ("8.9", 4),
        (None, 4),
    ]
    sidecar = json.loads((folder / f"{entries[1].name}.json").read_text())
    assert sidecar["engine"]["batch"] == {"min": 1, "opt": 2, "max": 4}


def test_float16_compiles_the_float16_file_of_the_bundle(bundle: Path, pan_c: Traced) -> None:
    other = to_float16(pan_c.model)
    other.doc_string = "made elsewhere"
    (bundle / "model.float16.onnx").write_bytes(other.SerializeToString())
    manifest = load_bundle(bundle).manifest
    (float32,) = manifest.files
    size, digest = (bundle / "model.float16.onnx").stat().st_size, sha256_file(bundle / "model.float16.onnx")
    changes = {"name": "model.float16.onnx", "precision": "float16", "bytes": size, "sha256": digest}
    save_manifest(bundle, manifest.model_copy(update={"files": (float32, float32.model_copy(update=changes))}))
    made = export_tensorrt(bundle, "float16", settings(), measuring=LOOSE)
    assert made.graph.model.doc_string == "made elsewhere"


def test_command_line(bundle: Path) -> None:
    options = ("--precision", "fp16", "--batch", "1:2:4", "--images", 4)
    done = pan_export("tensorrt", bundle, *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    entry, _ = load_bundle(bundle).file("tensorrt_rtx", "float16")
    assert printed["sidecar"]["engine"] == json.loads(entry.model_dump_json())
    assert printed["typed_graph"]["cosine_min"] > 0.999
    assert (printed["engine"], printed["unverified"]) == (None, "PyTorch finds no GPU here")

    again = pan_export("tensorrt", bundle, *options)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("error: the bundle already has tensorrt_rtx float16")
    assert again.stderr.count("\n") == 1

    verdicts = json.loads(pan_export("verify", bundle, "--images", 4, "--json").stdout)
    assert {verdict["engine"]: (verdict["verdict"], verdict["reason"]) for verdict in verdicts} == {
        "onnx float32": ("pass", None),
        "tensorrt_rtx float16": ("unseen", "PyTorch finds no GPU here"),
    }
