"""Add one engine file to a bundle that is in use: at every moment the folder is a whole bundle, old or new."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundle import BuiltFor, EngineFile, Kind, Manifest, Precision, Purpose, load_bundle, save_manifest
from export.errors import TargetError


@dataclass(frozen=True, slots=True)
class Slot:
    """What a bundle holds at most one entry of."""

    kind: Kind
    precision: Precision
    purpose: Purpose = "embed"
    built_for: BuiltFor | None = None

    @classmethod
    def of(cls, entry: EngineFile) -> "Slot":
        """The slot that an entry fills."""
        return cls(entry.kind, entry.precision, entry.purpose, entry.built_for)


def attach_engine(folder: Path, draft: Path, entry: EngineFile, fingerprint: str, overwrite: bool = False) -> Manifest:
    """Move `draft` (on the same file system, such as `folder / ".draft"`) into the bundle as `entry.name`.

    `fingerprint` is the model the draft was made from. With `overwrite` the entry of the same slot goes, with its file
    unless others name it. Raises TargetError, BundleError; then nothing has changed.
    """
    with _exclusive_lock(folder):
        manifest = load_bundle(folder).manifest  # others may have attached since the caller read it
        if manifest.model.fingerprint != fingerprint:
            raise TargetError(f"{folder} was replaced by another model meanwhile; run the command again")
        check_free_slot(manifest, Slot.of(entry), overwrite)
        stays = tuple(file for file in manifest.files if Slot.of(file) != Slot.of(entry))
        if any(file.name == entry.name and file.sha256 != entry.sha256 for file in stays):
            raise TargetError(f"{entry.name} belongs to another entry of {folder} as well; write a new bundle instead")
        _sync(draft)
        goes = {file.name for file in manifest.files} - {file.name for file in stays}
        if entry.name in goes:
            # between the two manifests the bytes under this name change, so neither may name it
            save_manifest(folder, manifest.model_copy(update={"files": stays}))
        draft.replace(folder / entry.name)
        manifest = manifest.model_copy(update={"files": (*stays, entry)})
        save_manifest(folder, manifest)
        for name in goes - {entry.name}:
            (folder / name).unlink()
        return manifest


def check_free_slot(manifest: Manifest, slot: Slot, overwrite: bool = False) -> None:
    """Raise TargetError where the slot is taken and not to be overwritten, or nothing else is in the bundle."""
    held = [file for file in manifest.files if Slot.of(file) == slot]
    if held and not overwrite:
        raise TargetError(f"the bundle holds {held[0].label} already ({held[0].name}); give --overwrite to replace it")
    if len(held) == len(manifest.files):
        raise TargetError(f"{held[0].name} is the only file of the bundle; write a new bundle with `pan-export onnx`")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Exports of several precisions may run at once, and each reads the manifest before it writes it."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
