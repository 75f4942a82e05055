"""Adds one engine file to a bundle that is in use. At every moment the folder is a complete bundle, old or new."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bundle import BuiltFor, EngineFile, Kind, Manifest, Precision, Purpose, load_bundle, save_manifest
from export.errors import TargetError
from export.files import lock_folder


@dataclass(frozen=True, slots=True)
class Slot:
    """The key of an entry: a bundle has at most one entry per slot."""

    kind: Kind
    precision: Precision
    purpose: Purpose = "embed"
    built_for: BuiltFor | None = None

    @classmethod
    def of(cls, entry: EngineFile) -> "Slot":
        """The slot of an entry."""
        return cls(entry.kind, entry.precision, entry.purpose, entry.built_for)


def attach_engine(folder: Path, draft: Path, entry: EngineFile, fingerprint: str, overwrite: bool = False) -> Manifest:
    """Move `draft` (on the same file system, such as `folder / ".draft"`) into the bundle as `entry.name`.

    `fingerprint` identifies the model of the draft. With `overwrite` the entry of the same slot is removed, with its
    file unless other entries use it. Raises TargetError or BundleError; the bundle is then unchanged.
    """
    with lock_folder(folder):
        manifest = load_bundle(folder).manifest  # another process may have attached since the caller read it
        if manifest.model.fingerprint != fingerprint:
            raise TargetError(f"{folder} was replaced by another model in the meantime; run the command again")
        check_free_slot(manifest, Slot.of(entry), overwrite)
        stays = tuple(file for file in manifest.files if Slot.of(file) != Slot.of(entry))
        if any(file.name == entry.name and file.sha256 != entry.sha256 for file in stays):
            raise TargetError(f"{entry.name} is also used by another entry of {folder}; write a new bundle instead")
        _sync(draft)
        goes = {file.name for file in manifest.files} - {file.name for file in stays}
        if entry.name in goes:
            # the file is replaced between two writes of the manifest, so neither may list it
            save_manifest(folder, manifest.model_copy(update={"files": stays}))
        draft.replace(folder / entry.name)
        manifest = manifest.model_copy(update={"files": (*stays, entry)})
        save_manifest(folder, manifest)
        for name in goes - {entry.name}:
            (folder / name).unlink()
        return manifest


def detach_engines(folder: Path, entries: Collection[EngineFile]) -> None:
    """Remove entries, and their files unless other entries use them. Entries that the bundle lacks are ignored.

    At least one entry must stay. Raises BundleError.
    """
    with lock_folder(folder):
        manifest = load_bundle(folder).manifest
        stays = tuple(entry for entry in manifest.files if entry not in entries)
        if len(stays) == len(manifest.files):
            return
        save_manifest(folder, manifest.model_copy(update={"files": stays}))
        for name in {entry.name for entry in manifest.files} - {entry.name for entry in stays}:
            (folder / name).unlink()
            (folder / f"{name}.json").unlink(missing_ok=True)  # the sidecar of a TensorRT engine


def check_free_slot(manifest: Manifest, slot: Slot, overwrite: bool = False) -> None:
    """Raise TargetError if the slot is taken and `overwrite` is not set, or if the bundle has no other entry."""
    held = [file for file in manifest.files if Slot.of(file) == slot]
    if held and not overwrite:
        raise TargetError(f"the bundle already has {held[0].label} ({held[0].name}); pass --overwrite to replace it")
    if len(held) == len(manifest.files):
        raise TargetError(f"{held[0].name} is the only file of the bundle; write a new bundle with `pan-export onnx`")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
