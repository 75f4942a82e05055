"""Threads that decode images, with one memory budget for all requests.

Limits bound the bytes, pixels, JPEG scans, memory and time of each image, so a thread decodes one image for at most
`max_seconds`. `DecodePool.overdue` reports a decode that exceeds this.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bundle import DEFAULT_LIMITS, ImageArray, ImageError, ImageLimits, read_header, resize_image
from service.batching.thread_priority import DECODE_NICENESS, lower_priority
from service.core.errors import BodyTooLarge, Overloaded
from service.inference.crop import Box, crop_boxes
from service.inference.crop_encoding import encode_crop


@dataclass(frozen=True, slots=True)
class Crop:
    """The network's input, (H, W, 3) uint8 RGB, and the JPEG of the crop if it was asked for."""

    pixels: ImageArray
    jpeg: bytes | None = None


class DecodePool:
    """One thread per core. Call the decoding methods on a thread of `executor`."""

    def __init__(self, height: int, width: int, limits: ImageLimits) -> None:
        """`height` and `width` are H and W of the network's input, in pixels."""
        self._shape = height, width
        self._limits = limits
        # Stored crops stay readable when the operator lowers the limits; only the time limit applies to them.
        self._stored_limits = replace(DEFAULT_LIMITS, max_seconds=limits.max_seconds)
        self._memory = MemoryBudget(limits.max_decode_bytes)
        self._running: dict[int, float] = {}  # thread -> start of its decode
        self.executor = ThreadPoolExecutor(
            os.cpu_count(), thread_name_prefix="decode", initializer=lower_priority, initargs=(DECODE_NICENESS,)
        )

    def decode(self, data: bytes, encode: bool = False) -> Crop:
        """Decode and resize one image; with `encode`, add its JPEG. Raises ImageError, or Overloaded without memory."""
        with self._decoded(data, self._limits) as pixels:
            return self._crop(pixels, encode)

    def decode_boxes(self, frame: bytes, boxes: Sequence[Box], encode: bool = False) -> list[Crop | ImageError]:
        """Decode a frame, and resize the pixels of each box.

        Raises as `decode` for the frame. Each box may be as large as the frame, so all boxes together may have no more
        pixels than one image; raises BodyTooLarge otherwise.
        """
        with self._decoded(frame, self._limits) as pixels:
            regions = crop_boxes(pixels, boxes, self._limits.min_side)
            total = sum(region.shape[0] * region.shape[1] for region in regions if not isinstance(region, ImageError))
            if total > self._limits.max_pixels:
                raise BodyTooLarge(
                    f"the boxes have {total:,} pixels together; at most {self._limits.max_pixels:,} are accepted: send "
                    "the frame again with the rest of them"
                )
            return [region if isinstance(region, ImageError) else self._crop(region, encode) for region in regions]

    def decode_stored(self, data: bytes) -> Crop:
        """As `decode`, of a crop that this service encoded; the operator's limits on size do not apply."""
        with self._decoded(data, self._stored_limits) as pixels:
            return self._crop(pixels, encode=False)

    def reencode(self, data: bytes) -> bytes:
        """A JPEG for storage of a crop that another service exported. Raises as `decode`."""
        with self._decoded(data, self._stored_limits) as pixels:
            return encode_crop(pixels)

    @property
    def overdue(self) -> float:
        """Seconds by which the longest running decode exceeds the time limit; 0 if none does."""
        limit = self._limits.max_seconds
        oldest = min(self._running.copy().values(), default=None)
        return 0.0 if limit is None or oldest is None else max(0.0, time.monotonic() - oldest - limit)

    def close(self) -> None:
        """Stop the threads. Cancels work that has not started."""
        self.executor.shutdown(cancel_futures=True)

    def _crop(self, pixels: ImageArray, encode: bool) -> Crop:
        return Crop(resize_image(pixels, *self._shape), encode_crop(pixels) if encode else None)

    @contextmanager
    def _decoded(self, data: bytes, limits: ImageLimits) -> Iterator[ImageArray]:
        """The (h, w, 3) uint8 RGB pixels of an image. Holds its memory until the context ends."""
        encoded = read_header(data, limits)
        with self._memory.hold(min(encoded.decode_bytes, self._limits.max_decode_bytes), self._limits.max_seconds):
            thread = threading.get_ident()
            self._running[thread] = time.monotonic()
            try:
                pixels = encoded.decode()
            finally:
                del self._running[thread]
            yield pixels


class MemoryBudget:
    """Bytes that threads share. Threads get memory in the order they ask, so small images do not starve a large one."""

    def __init__(self, size: int) -> None:
        """`size` is in bytes."""
        self._free = size
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int, seconds: float | None) -> Iterator[None]:
        """Reserve `size` bytes inside the context. Raises Overloaded if they are not free within `seconds`."""
        if not self._turn.acquire(timeout=-1 if seconds is None else seconds):
            raise _exhausted()
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: self._free >= size, seconds):
                    raise _exhausted()
                self._free -= size
        finally:
            self._turn.release()
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify()


def _exhausted() -> Overloaded:
    return Overloaded("the memory for image decoding is in use; try again in 1 s", 1)
