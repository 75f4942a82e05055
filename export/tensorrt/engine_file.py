"""Metadata of an engine: its name, its target, and a sidecar file."""

import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from bundle import BuiltFor, EngineFile, Precision
from bundle.manifest import Sha256, StrictModel
from export.errors import BuildError
from export.files import write_atomically
from export.tensorrt.build import BuildSettings
from export.tensorrt.library import Library
from export.tensorrt.runtime import Gpu


class Sidecar(StrictModel):
    """`<engine>.json`: the manifest's entry and details of the build."""

    engine: EngineFile
    fingerprint: Sha256  # of the model, as in the manifest
    graph_sha256: Sha256  # of the typed ONNX that was compiled
    workspace: int | None  # bytes
    build_seconds: float
    built_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


def built_for(library: Library, settings: BuildSettings, gpu: Gpu | None) -> BuiltFor:
    """The target of the build. Raises BuildError if the library needs a GPU and there is none."""
    if library.name == "tensorrt_rtx":
        return BuiltFor(library_version=library.version, compute_capability=settings.compute_capability)
    if gpu is None:
        raise BuildError(
            "TensorRT builds on the target GPU, and PyTorch finds no GPU here; run this on the target machine, or "
            "build for RTX cards with --library tensorrt_rtx"
        )
    return BuiltFor(
        library_version=library.version,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        hardware_compatibility=settings.hardware_compatibility,
        version_compatible=settings.version_compatible,
    )


def engine_name(library: Library, precision: Precision, target: BuiltFor) -> str:
    """Such as `model.float16.tensorrt-11.4.0.106-nvidia-l4-sm8.9.engine`: one name for one slot of the manifest."""
    words = [
        library.name,
        target.library_version,
        re.sub(r"[^a-z0-9]+", "-", target.gpu.lower()) if target.gpu else None,
        f"sm{target.compute_capability}" if target.compute_capability else "any",
        None if target.hardware_compatibility == "none" else target.hardware_compatibility,
        "later-versions" if target.version_compatible else None,
    ]
    return f"model.{precision}.{'-'.join(word for word in words if word)}.engine"


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write the sidecar beside the engine, atomically."""
    write_atomically(path, sidecar.model_dump_json(indent=2) + "\n")
