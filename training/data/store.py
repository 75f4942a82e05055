"""Decoded crops: read with `bundle.load_crop` and cached as uint8 in memory."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from bundle import ImageArray, ImageError, InputSpec, load_crop
from training.data.crops import Crop
from training.errors import DataError


class CropStore:
    """Returns crops of a list as one uint8 array. Pillow releases the GIL, so threads decode in parallel."""

    def __init__(self, crops: Sequence[Crop], spec: InputSpec, cache_gib: float = 4.0, threads: int = 2) -> None:
        """`cache_gib`: memory for decoded crops; `threads`: number of decoding threads."""
        self.crops, self.spec = crops, spec
        self._shape = (spec.height, spec.width, 3)
        self._kept = int(min(len(crops), cache_gib * 2**30 / math.prod(self._shape)))
        # numpy.empty reserves address space; pages are allocated when crops are decoded
        self._cache: ImageArray = np.empty((self._kept, *self._shape), np.uint8)
        self._filled = np.zeros(len(crops), bool)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.crops)

    def get(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ImageArray:
        """Crops by index -> (B, H, W, 3) uint8 RGB. Raises DataError with the name of a file that cannot be read."""
        wanted = [int(index) for index in indices]
        missing = [index for index in dict.fromkeys(wanted) if not self._filled[index]]
        decoded = dict(zip(missing, self._pool.map(self._decode, missing), strict=True))
        chosen: ImageArray = np.empty((len(wanted), *self._shape), np.uint8)
        for row, index in enumerate(wanted):
            chosen[row] = decoded[index] if index in decoded else self._cache[index]
        for index, image in decoded.items():
            if index < self._kept:
                self._cache[index] = image
                self._filled[index] = True
        return chosen

    def _decode(self, index: int) -> ImageArray:
        path = self.crops[index].path
        try:
            return load_crop(path.read_bytes(), self.spec.height, self.spec.width)
        except (ImageError, OSError) as error:
            raise DataError(f"{path} cannot be used: {error}; remove or replace it") from error
