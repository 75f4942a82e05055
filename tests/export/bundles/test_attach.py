"""An engine is added to a bundle in use. After every failure the folder is a complete bundle."""

import hashlib
from pathlib import Path

import pytest

import export.bundles.attach
from bundle import BatchProfile, BuiltFor, Bundle, EngineFile, Manifest, load_bundle, save_manifest
from export.bundles.attach import attach_engine
from export.errors import TargetError
from tests.support.bundles import write_bundle

ADA = BuiltFor(library_version="11.4.0", gpu="NVIDIA L4", compute_capability="8.9")


def entry(content: bytes, name: str = "model.float16.engine", built_for: BuiltFor = ADA) -> EngineFile:
    return EngineFile(
        name=name,
        kind="tensorrt",
        precision="float16",
        batch=BatchProfile(min=1, opt=8, max=64),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parity=None,
        built_for=built_for,
    )


def add(folder: Path, content: bytes, file: EngineFile | None = None, overwrite: bool = False) -> Manifest:
    draft = folder / ".draft"
    draft.write_bytes(content)
    return attach_engine(
        folder, draft, file or entry(content), load_bundle(folder).manifest.model.fingerprint, overwrite
    )


def labels(bundle: Bundle) -> list[str]:
    return [file.label for file in bundle.manifest.files]


def test_an_engine_is_added_and_other_files_stay(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    before = load_bundle(folder).manifest
    add(folder, b"for an L4")
    other = BuiltFor(library_version="11.4.0", gpu="NVIDIA H100", compute_capability="9.0")
    returned = add(folder, b"for an H100", entry(b"for an H100", "h100.engine", other))
    bundle = load_bundle(folder)  # verifies sizes and hashes
    assert labels(bundle) == ["onnx float32", "tensorrt float16", "tensorrt float16"]
    assert bundle.manifest == returned
    assert bundle.manifest.files[0] == before.files[0]
    assert bundle.manifest.model == before.model
    assert (folder / "model.float16.engine").read_bytes() == b"for an L4"
    assert not (folder / ".draft").exists()


def test_an_engine_of_the_same_slot_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    add(folder, b"first")
    with pytest.raises(
        TargetError, match=r"the bundle already has tensorrt float16 \(model\.float16\.engine\); pass --overwrite"
    ):
        add(folder, b"second")
    assert load_bundle(folder).file("tensorrt", "float16")[1].read_bytes() == b"first"
    add(folder, b"second", overwrite=True)
    assert load_bundle(folder).file("tensorrt", "float16")[1].read_bytes() == b"second"
    add(folder, b"third", entry(b"third", "another.engine"), overwrite=True)
    assert labels(load_bundle(folder)) == ["onnx float32", "tensorrt float16"]
    assert sorted(file.name for file in folder.glob("*.engine")) == ["another.engine"]


@pytest.mark.parametrize("abort_at", [0, 1])
def test_an_abort_during_replacement_leaves_a_complete_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abort_at: int
) -> None:
    folder = write_bundle(tmp_path / "bundle")
    add(folder, b"first")
    saves = iter(range(9))

    def save(to: Path, manifest: Manifest) -> None:
        if next(saves) == abort_at:
            raise SystemExit
        save_manifest(to, manifest)

    monkeypatch.setattr(export.bundles.attach, "save_manifest", save)
    with pytest.raises(SystemExit):
        add(folder, b"second", overwrite=True)
    assert labels(load_bundle(folder))[0] == "onnx float32"
    monkeypatch.undo()
    add(folder, b"second", overwrite=True)
    assert load_bundle(folder).file("tensorrt", "float16")[1].read_bytes() == b"second"


def test_an_engine_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", seed=0)
    fingerprint = load_bundle(folder).manifest.model.fingerprint
    write_bundle(folder, seed=1)
    (folder / ".draft").write_bytes(b"of seed 0")
    before = load_bundle(folder).manifest
    with pytest.raises(TargetError, match="replaced by another model"):
        attach_engine(folder, folder / ".draft", entry(b"of seed 0"), fingerprint)
    assert load_bundle(folder).manifest == before


def test_the_last_engine_and_a_shared_file_are_not_replaced(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (held,) = load_bundle(folder).manifest.files
    with pytest.raises(TargetError, match="is the only file of the bundle"):
        add(folder, b"onnx", held.model_copy(update={"bytes": 4, "sha256": "0" * 64}), overwrite=True)
    with pytest.raises(TargetError, match="is also used by another entry"):
        add(folder, b"engine", entry(b"engine", held.name))
    assert load_bundle(folder).manifest.files == (held,)
