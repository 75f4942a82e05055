"""A bundle on disk: a folder with `manifest.json` and the engine files it names."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from bundle.errors import BundleFileError, ManifestError
from bundle.manifest import EngineFile, InputSpec, Kind, Manifest, Precision, Purpose

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: every file that the manifest names exists with the stated size and hash."""

    path: Path
    manifest: Manifest

    def file(self, kind: Kind, precision: Precision, purpose: Purpose = "embed") -> tuple[EngineFile, Path]:
        """The first engine file of a kind, precision and purpose, with its path.

        Raises BundleFileError if there is none.
        """
        for entry in self.manifest.files:
            if (entry.kind, entry.precision, entry.purpose) == (kind, precision, purpose):
                return entry, self.path / entry.name
        wanted = f"{kind} {precision}" + ("" if purpose == "embed" else f" {purpose}")
        held = ", ".join(entry.label for entry in self.manifest.files)
        raise BundleFileError(f"the bundle {self.path} has no {wanted} file; it holds: {held}")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(weights: Mapping[str, npt.NDArray[Any]], spec: InputSpec) -> str:
    """SHA-256 over every weight (name, type, shape, bytes) and the preprocessing: the identity of an embedding space.

    Vectors of two models with different fingerprints must never be compared.
    """
    digest = hashlib.sha256(spec.model_dump_json().encode())
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically and sync it: a reader, also after a power loss, finds the old or the new one."""
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(manifest.model_dump_json(indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / MANIFEST)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify the size and hash of every file it names.

    Raises ManifestError or BundleFileError with the remedy.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{folder} is not a bundle: it has no {MANIFEST}; make one with `pan-export onnx`")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, issue['loc'])) or 'file'}: {issue['msg']}" for issue in error.errors()[:5]
        )
        raise ManifestError(
            f"{path} does not match this version's schema ({problems}); export the checkpoint again"
        ) from None
    for entry in {entry.name: entry for entry in manifest.files}.values():
        _verify(folder / entry.name, entry)
    return Bundle(folder, manifest)


def _verify(path: Path, entry: EngineFile) -> None:
    if not path.is_file():
        raise BundleFileError(f"{path} is named in the manifest but missing; copy the whole bundle again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise BundleFileError(
            f"{path} has {size:,} bytes, the manifest says {entry.bytes:,}; copy the whole bundle again"
        )
    if sha256_file(path) != entry.sha256:
        raise BundleFileError(f"{path} is not the file that was exported: its SHA-256 differs; copy it again")
