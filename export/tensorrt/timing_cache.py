"""What TensorRT measured of its kernels on this GPU, kept between builds: a second build takes seconds, not minutes."""

from contextlib import suppress
from pathlib import Path
from typing import Any


def path_beside(bundle: Path) -> Path:
    """Next to the bundle's folder, not in it: it belongs to the machine, and no service needs it."""
    bundle = bundle.resolve()
    return bundle.with_name(f"{bundle.name}.tensorrt-timings")


def use(config: Any, path: Path) -> None:
    """Give the builder the measurements of `path`; those of another GPU or version are left aside."""
    held = path.read_bytes() if path.is_file() else b""
    if not (held and config.set_timing_cache(config.create_timing_cache(held), ignore_mismatch=False)):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def keep(config: Any, path: Path) -> None:
    """Write what the builder knows now."""
    draft = path.with_name(f".{path.name}.draft")
    with suppress(OSError):  # the next build takes longer, and that is all
        draft.write_bytes(bytes(config.get_timing_cache().serialize()))
        draft.replace(path)
