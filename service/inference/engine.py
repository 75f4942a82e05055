"""An engine computes unit vectors from uint8 crops, by any runtime.

Shapes: B crops of H x W pixels, D dimensions of a vector. Only one thread at a time may use an engine.
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
    """Shapes of the input and the output of an engine file, from the manifest."""

    height: int
    width: int
    dim: int

    def require(self, found: Sequence[tuple[str, Sequence[int]]], path: Path) -> None:
        """Compare with the dtype and shape, without the batch axis, of every input and output of the file.

        Raises StartupError if they differ.
        """
        expected = [("uint8", [self.height, self.width, 3]), ("float32", [self.dim])]
        found = [(dtype, list(shape)) for dtype, shape in found]
        if found != expected:
            raise StartupError(
                f"{path.name} has the inputs and outputs {found}, but the manifest says {expected}; export the bundle "
                "again"
            )


class Runner(Protocol):
    """An engine file that a runtime has loaded."""

    @property
    def max_batch(self) -> int | None:
        """The largest batch; None is unlimited."""

    def run(self, crops: ImageArray) -> Vectors:
        """(B, H, W, 3) uint8 RGB, 1 <= B <= max_batch -> (B, D) float32. Raises the errors of the runtime."""

    def close(self) -> None:
        """Release the resources of the runtime. `run` must not be called afterwards."""


class Engine:
    """A runner with the checks that every runtime needs."""

    def __init__(self, runner: Runner, signature: Signature) -> None:
        self._runner = runner
        self.height, self.width, self.dim = signature.height, signature.width, signature.dim
        self.max_batch = runner.max_batch

    def embed(self, crops: ImageArray) -> Vectors:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32 of unit length.

        A crop whose output has no direction (zero or not finite) gets a row of NaN. A batch over `max_batch` is split.
        Raises EngineFailed if the runtime fails, or if no crop of the batch and no grey image gets a direction.
        """
        vectors = normalize_rows(self._run(crops))
        if is_undefined(vectors).all() and is_undefined(normalize_rows(self._run(self.grey()))).all():
            raise EngineFailed(
                f"the engine returned zeros, NaN or infinity for a batch of {len(crops)}, and for a grey image too; "
                "check the bundle with `pan-export verify`"
            )
        return vectors

    def grey(self) -> ImageArray:
        """(1, H, W, 3) uint8: an image for which a correct engine returns a direction."""
        return np.full((1, self.height, self.width, 3), 128, np.uint8)

    def _run(self, crops: ImageArray) -> Vectors:
        step = self.max_batch or len(crops)
        try:
            parts = [self._runner.run(crops[start : start + step]) for start in range(0, len(crops), step)]
        except Exception as error:  # each runtime has its own exceptions, most of them derived from Exception directly
            raise EngineFailed(
                f"the engine failed on a batch of {len(crops)} ({type(error).__name__}: {error})"
            ) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Release the resources of the engine."""
        self._runner.close()


def padded_size(count: int, least: int = 1, most: int | None = None) -> int:
    """The batch size to which `count` crops are padded: the next power of two, within `least` and `most`."""
    size = max(least, 1 << (count - 1).bit_length())
    return size if most is None else min(size, most)
