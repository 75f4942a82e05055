"""The timing cache of TensorRT: kernel timings of this GPU, kept so that a second build takes seconds, not minutes."""

from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_path(bundle: Path) -> Path:
    """The cache's path: beside the bundle's folder, because it belongs to the machine and services do not need it."""
    bundle = bundle.resolve()
    return bundle.with_name(f"{bundle.name}.tensorrt-timings")


def load(config: Any, path: Path) -> None:
    """Load the cache of `path` into the builder; a cache of another GPU or version is ignored."""
    saved = path.read_bytes() if path.is_file() else b""
    if not (saved and config.set_timing_cache(config.create_timing_cache(saved), ignore_mismatch=False)):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def save(config: Any, path: Path) -> None:
    """Write the builder's cache to `path`."""
    draft = path.with_name(f".{path.name}.draft")
    with suppress(OSError):  # without the cache the next build only takes longer
        draft.write_bytes(bytes(config.get_timing_cache().serialize()))
        draft.replace(path)
