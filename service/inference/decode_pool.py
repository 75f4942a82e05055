"""Threads that turn encoded pictures into pixels, within one budget of memory for all requests together.

Every picture is decoded within limits that its header is checked against: bytes, pixels, scans, memory and time. So a
thread of this pool is busy with one picture for `max_seconds` at most, and `overdue` says so where it is not.
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
    """A picture as the network takes it, (H, W, 3) uint8 RGB, and as a gallery keeps it where that was asked for."""

    pixels: ImageArray
    kept: bytes | None = None


class DecodePool:
    """One thread a core. The methods that decode are called on these threads."""

    def __init__(self, height: int, width: int, limits: ImageLimits) -> None:
        """height and width: H and W of the network's input, in pixels."""
        self._shape = height, width
        self._limits = limits
        # What was kept once is read again whatever the operator accepts by now; the time limit holds all the same.
        self._kept_limits = replace(DEFAULT_LIMITS, max_seconds=limits.max_seconds)
        self._memory = MemoryBudget(limits.max_decode_bytes)
        self._running: dict[int, float] = {}  # thread -> when it began to decode
        self.executor = ThreadPoolExecutor(
            os.cpu_count(), thread_name_prefix="decode", initializer=lower_priority, initargs=(DECODE_NICENESS,)
        )

    def crop(self, data: bytes, keep: bool = False) -> Crop:
        """Decode and resize one picture. Raises ImageError, or Overloaded where memory stays taken."""
        with self._decoded(data, self._limits) as pixels:
            return self._crop(pixels, keep)

    def crops(self, frame: bytes, boxes: Sequence[Box], keep: bool = False) -> list[Crop | ImageError]:
        """Decode a frame and resize what is in each of its boxes.

        Raises as `crop` for the frame, and BodyTooLarge where all boxes together have more pixels than one picture may
        have: each may be as large as the frame.
        """
        with self._decoded(frame, self._limits) as pixels:
            regions = crop_boxes(pixels, boxes, self._limits.min_side)
            total = sum(region.shape[0] * region.shape[1] for region in regions if not isinstance(region, ImageError))
            if total > self._limits.max_pixels:
                raise BodyTooLarge(
                    f"the boxes have {total:,} pixels together; at most {self._limits.max_pixels:,} are accepted: send "
                    "the frame again with the rest of them"
                )
            return [region if isinstance(region, ImageError) else self._crop(region, keep) for region in regions]

    def kept_crop(self, data: bytes) -> Crop:
        """As `crop`, of a picture that this service encoded, whatever its operator accepts by now."""
        with self._decoded(data, self._kept_limits) as pixels:
            return self._crop(pixels, keep=False)

    def reencode(self, data: bytes) -> bytes:
        """A picture from another service's export, encoded as this one keeps crops. Raises as `crop`."""
        with self._decoded(data, self._kept_limits) as pixels:
            return encode_crop(pixels)

    @property
    def overdue(self) -> float:
        """Seconds by which the oldest running decode is over its limit; 0 where none is."""
        limit = self._limits.max_seconds
        oldest = min(self._running.copy().values(), default=None)
        return 0.0 if limit is None or oldest is None else max(0.0, time.monotonic() - oldest - limit)

    def close(self) -> None:
        """Stop; what has not begun is cancelled."""
        self.executor.shutdown(cancel_futures=True)

    def _crop(self, pixels: ImageArray, keep: bool) -> Crop:
        return Crop(resize_image(pixels, *self._shape), encode_crop(pixels) if keep else None)

    @contextmanager
    def _decoded(self, data: bytes, limits: ImageLimits) -> Iterator[ImageArray]:
        """The pixels of a picture; its share of the memory is taken until they are no longer needed."""
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
    """Bytes that threads share. Who waits for room is served in turn, so that small pictures do not starve a large."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int, seconds: float | None) -> Iterator[None]:
        """Inside, `size` bytes are taken. Raises Overloaded where they are not free within `seconds`."""
        if not self._turn.acquire(timeout=-1 if seconds is None else seconds):
            raise _no_room()
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: self._free >= size, seconds):
                    raise _no_room()
                self._free -= size
        finally:
            self._turn.release()
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify()


def _no_room() -> Overloaded:
    return Overloaded("the pictures that are decoded take all the memory there is for it; try again in 1 s", 1)
