"""Writes a bundle folder atomically: it appears complete or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from bundle import EngineFile, load_bundle, save_manifest
from bundle.loader import MANIFEST
from export.errors import TargetError


@contextmanager
def new_bundle(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `out` that is renamed to `out` if the block succeeds and removed otherwise.

    With `overwrite` an existing bundle stays until the new one is complete. Raises TargetError.
    """
    out = out.resolve()
    check_free(out, overwrite)
    draft = _sibling(out, "draft")
    draft.mkdir(parents=True)
    try:
        yield draft
        load_bundle(draft)  # a bundle that a service would refuse is not published
        check_free(out, overwrite)  # another process may have written there in the meantime
        _swap_in(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def copy_bundle(source: Path, out: Path, entries: Collection[EngineFile]) -> None:
    """Replace the bundle `out` by a copy of `source` with those of its entries. Raises BundleError."""
    manifest = load_bundle(source).manifest
    files = tuple(entry for entry in manifest.files if entry in entries)
    with new_bundle(out, overwrite=True) as draft:
        for name in {entry.name for entry in files}:
            shutil.copyfile(source / name, draft / name)
        save_manifest(draft, manifest.model_copy(update={"files": files}))


def check_free(out: Path, overwrite: bool) -> None:
    """Raise TargetError unless `out` does not exist, is empty, or is a bundle that may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise TargetError(f"{out} exists and is not a bundle; choose a new folder")
    if not overwrite:
        raise TargetError(f"{out} already contains a bundle; pass --overwrite to replace it, or choose a new folder")


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with its weights in one file and sync it to disk."""
    with path.open("wb") as stream:
        stream.write(model.SerializeToString(deterministic=True))
        stream.flush()
        os.fsync(stream.fileno())


def _swap_in(draft: Path, out: Path) -> None:
    if not out.exists():
        draft.rename(out)
        return
    retired = _sibling(out, "old")
    out.rename(retired)
    try:
        draft.rename(out)
    except OSError:
        retired.rename(out)
        raise
    shutil.rmtree(retired)


def _sibling(out: Path, word: str) -> Path:
    return out.with_name(f".{out.name}.{os.getpid()}.{word}")
