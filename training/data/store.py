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
    """Returns crops of a list as one uint8 array. Decoders release the GIL, so threads decode in parallel.

    Several threads may call `get`.
    """

    def __init__(self, crops: Sequence[Crop], spec: InputSpec, cache_gib: float = 4.0, threads: int = 2) -> None:
        """`cache_gib`: memory for decoded crops; `threads`: number of decoding threads."""
        self.crops, self.spec = crops, spec
        self._shape = (spec.height, spec.width, 3)
        self._kept = int(min(len(crops), cache_gib * 2**30 / math.prod(self._shape)))
        # numpy.empty reserves address space; pages are allocated when crops are decoded
        self._cache: ImageArray = np.empty((self._kept, *self._shape), np.uint8)
        self._filled = np.zeros(len(crops), bool)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.crops)

    def get(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> ImageArray:
        """Crops by index -> (B, H, W, 3) uint8 RGB. Raises DataError with the name of a file that cannot be read."""
        wanted = [int(index) for index in indices]
        chosen: ImageArray = np.empty((len(wanted), *self._shape), np.uint8)
        missing: dict[int, int] = {}  # index -> the first row that needs it
        for row, index in enumerate(wanted):
            if self._filled[index]:
                chosen[row] = self._cache[index]
            else:
                missing.setdefault(index, row)
        items = list(missing.items())
        # one task for each thread: a task for each crop costs as much as decoding a small one
        shares = [items[start :: self._threads] for start in range(min(self._threads, len(items)))]
        list(self._pool.map(lambda share: self._decode(share, chosen), shares))
        for row, index in enumerate(wanted):
            if missing.get(index, row) != row:
                chosen[row] = chosen[missing[index]]
        return chosen

    def _decode(self, items: Sequence[tuple[int, int]], chosen: ImageArray) -> None:
        """Crops (index, row) into rows of a batch, and into the cache."""
        for index, row in items:
            path = self.crops[index].path
            try:
                chosen[row] = load_crop(path.read_bytes(), self.spec.height, self.spec.width)
            except (ImageError, OSError) as error:
                raise DataError(f"{path} cannot be used: {error}; remove or replace it") from error
            if index < self._kept:
                self._cache[index] = chosen[row]
                self._filled[index] = True
