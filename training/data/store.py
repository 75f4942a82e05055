"""Decoded crops: read once by `bundle.load_crop`, kept as uint8 in memory where they fit."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from bundle import ImageArray, ImageError, InputSpec, load_crop
from training.data.crops import Crop
from training.errors import DataError


class CropStore:
    """Gives any crops of a list as one uint8 array. Pillow decodes outside the GIL, so threads are enough."""

    def __init__(self, crops: Sequence[Crop], spec: InputSpec, cache_gib: float = 4.0, threads: int = 2) -> None:
        self.crops, self.spec = crops, spec
        shape = (len(crops), spec.height, spec.width, 3)
        # numpy.empty costs address space only; pages are taken as crops are decoded
        fits = np.prod(shape, dtype=np.int64) <= cache_gib * 2**30
        self._cache: ImageArray | None = np.empty(shape, np.uint8) if fits else None
        self._filled = np.zeros(len(crops), bool)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.crops)

    def get(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ImageArray:
        """Crops by index -> (B, H, W, 3) uint8 RGB. Raises DataError naming a file that cannot be read."""
        if self._cache is None:
            return np.stack(list(self._pool.map(self._decode, indices)))
        wanted = {int(index) for index in indices}
        missing = [index for index in wanted if not self._filled[index]]
        for index, image in zip(missing, self._pool.map(self._decode, missing), strict=True):
            self._cache[index] = image
            self._filled[index] = True
        chosen: ImageArray = self._cache[np.asarray(indices)]
        return chosen

    def _decode(self, index: int) -> ImageArray:
        path = self.crops[index].path
        try:
            return load_crop(path.read_bytes(), self.spec.height, self.spec.width)
        except (ImageError, OSError) as error:
            raise DataError(f"{path} cannot be used: {error}; remove or replace it") from error
