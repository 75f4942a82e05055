"""What an engine is: uint8 crops in, unit vectors out, whichever runtime computes them.

B crops of H x W pixels become (B, D) float32. One engine is driven by one thread at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bundle import ImageArray
from service.core.errors import EngineFailed, StartupError
from service.core.types import Vectors
from service.core.vectors import is_undefined, normalize_rows


@dataclass(frozen=True, slots=True)
class Signature:
    """The one input and the one output of an engine file, as the manifest gives them."""

    height: int
    width: int
    dim: int

    def require(self, found: Sequence[tuple[str, Sequence[int]]], path: Path) -> None:
        """`found` is type and shape, without the batch, of all inputs and outputs. Raises StartupError."""
        expected = [("uint8", [self.height, self.width, 3]), ("float32", [self.dim])]
        found = [(dtype, list(shape)) for dtype, shape in found]
        if found != expected:
            raise StartupError(
                f"{path.name} takes and gives {found}, the manifest says {expected}; export the bundle again"
            )


class Runner(Protocol):
    """An engine file that a runtime has loaded."""

    @property
    def max_batch(self) -> int | None:
        """Crops a run; None is any number."""

    def run(self, crops: ImageArray) -> Vectors:
        """(B, H, W, 3) uint8 RGB, 1 <= B <= max_batch -> (B, D) float32. Raises whatever the runtime does."""

    def close(self) -> None:
        """Give back what the runtime holds; nothing runs afterwards."""


class Engine:
    """A runner behind the checks that every runtime needs."""

    def __init__(self, runner: Runner, signature: Signature) -> None:
        self._runner = runner
        self.height, self.width, self.dim = signature.height, signature.width, signature.dim
        self.max_batch = runner.max_batch

    def embed(self, crops: ImageArray) -> Vectors:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32 of unit length; a row of NaN for a crop to which the engine gives no
        direction. A batch over the engine's limit is split.

        Raises EngineFailed when the engine does, or when it gives a direction neither to any crop nor to a grey one.
        """
        vectors = normalize_rows(self._run(crops))
        if is_undefined(vectors).all() and is_undefined(normalize_rows(self._run(self.grey()))).all():
            raise EngineFailed(
                f"the engine gave zeros, NaN or infinite numbers for a batch of {len(crops)}, and for a grey picture "
                "too; check the bundle with `pan-export verify`"
            )
        return vectors

    def grey(self) -> ImageArray:
        """(1, H, W, 3): a picture to which a sound engine gives a direction."""
        return np.full((1, self.height, self.width, 3), 128, np.uint8)

    def _run(self, crops: ImageArray) -> Vectors:
        step = self.max_batch or len(crops)
        try:
            parts = [self._runner.run(crops[start : start + step]) for start in range(0, len(crops), step)]
        except Exception as error:  # each runtime raises its own classes, most directly under Exception
            raise EngineFailed(
                f"the engine failed on a batch of {len(crops)} ({type(error).__name__}: {error})"
            ) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Give back the engine's memory."""
        self._runner.close()


def padded_size(count: int, least: int = 1, most: int | None = None) -> int:
    """The batch that `count` crops are filled up to where only few sizes are to occur: a power of two within limits."""
    size = max(least, 1 << (count - 1).bit_length())
    return size if most is None else min(size, most)
