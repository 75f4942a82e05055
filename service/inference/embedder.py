"""Encoded images to vectors: limiter, decode pool, batcher, engine.

An image that cannot be decoded fails alone. The limiter bounds the images in progress, so the queue never holds more
than the engine embeds in time; a request over the limit gets Overloaded.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from bundle import ImageArray, ImageError
from service.batching.batcher import Batcher
from service.batching.limiter import ConcurrencyLimiter
from service.batching.thread_priority import isolate_engine_driver
from service.core.errors import BodyTooLarge, EngineFailed, NoEmbedding
from service.core.settings import Settings
from service.core.types import Vectors
from service.core.vectors import is_undefined
from service.inference.crop import Box
from service.inference.decode_pool import Crop, DecodePool
from service.inference.engine import Engine
from service.observability import tracing
from service.observability.metrics import Metrics
from service.observability.worker import WorkerHealth

T = TypeVar("T")

_BACKGROUND_WAIT = 1.0  # seconds that background work waits, at most, for a moment without requests
_POLL_INTERVAL = 0.02
_LINGER_FACTOR = 0.1  # wait at most 10 % of the last batch's time to fill the next


class Embedder:
    """Use it on one event loop."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._pool = DecodePool(engine.height, engine.width, settings.images)
        self.health = WorkerHealth("engine", metrics)
        self._batcher: Batcher[ImageArray, Vectors] = Batcher(
            self._embed_batch,
            name="engine",
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            linger_factor=_LINGER_FACTOR,
            on_thread_start=isolate_engine_driver,
            on_thread_failure=partial(self.health.report, failed=True),
        )
        self._limiter = ConcurrencyLimiter("images", settings.max_queue, metrics.images_admitted)
        self._last_success = -math.inf

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return self._engine.dim

    @property
    def seconds_since_success(self) -> float:
        """Age of the last batch that the engine embedded; infinite before the first."""
        return time.monotonic() - self._last_success

    @property
    def decode_overdue(self) -> float:
        """Seconds by which the longest running decode exceeds the time limit; 0 if none does."""
        return self._pool.overdue

    def require_running(self) -> None:
        """Raises NotReady if the engine's thread has ended."""
        self._batcher.require_running()

    async def embed(
        self, images: Sequence[bytes | ImageError], boxes: Sequence[Box] | None = None
    ) -> list[Vectors | ImageError]:
        """The (D,) unit vector of each image, or its error. Errors among `images` are passed through.

        With `boxes`, `images` holds one frame, and the result has one element for each box; an error of the frame is
        raised. Raises BodyTooLarge, Overloaded or EngineFailed for the whole request. The caller sets the deadline.
        """
        outcomes = await self._map_images(self._embed_image, images, boxes, encode=False)
        return [one if isinstance(one, ImageError) else one[0] for one in outcomes]

    async def embed_and_encode(
        self, images: Sequence[bytes | ImageError], boxes: Sequence[Box] | None = None
    ) -> list[tuple[Vectors, bytes | None] | ImageError]:
        """As `embed`, with each vector the JPEG of its crop for storage."""
        return await self._map_images(self._embed_image, images, boxes, encode=True)

    async def decode(
        self, images: Sequence[bytes | ImageError], boxes: Sequence[Box] | None = None
    ) -> list[ImageArray | ImageError]:
        """The network's input for each image, (H, W, 3) uint8 RGB, or its error. Arguments and errors as `embed`."""
        return await self._map_images(self._decode_image, images, boxes, encode=False)

    async def embed_background(self, images: Sequence[bytes]) -> list[Vectors | ImageError]:
        """As `embed`, of stored crops and with low priority: waits up to a second for a moment without requests."""
        deadline = time.monotonic() + _BACKGROUND_WAIT
        while self._limiter.busy and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_INTERVAL)
        outcomes: list[Vectors | ImageError] = []
        for start in range(0, len(images), self._settings.max_images):
            batch = images[start : start + self._settings.max_images]
            outcomes += await self._map_images(self._embed_stored, batch, None, encode=False)
        return outcomes

    async def reencode(self, image: bytes) -> bytes:
        """A JPEG for storage of a crop that another service exported. Raises ImageError.

        It does not count towards the limit on images; the caller sends one at a time.
        """
        return await self._run_in_pool(self._pool.reencode, image)

    async def probe(self) -> None:
        """Embed one grey image, outside the limit. Raises EngineFailed or TimeoutError if the engine does not work."""
        async with asyncio.timeout(self._settings.request_timeout):
            try:
                _require_direction(await self._batcher.submit(self._engine.grey()[0]))
            except NoEmbedding as error:
                raise EngineFailed(f"a grey image: {error}; check the bundle with `pan-export verify`") from None

    async def close(self) -> None:
        """Stop the threads. Cancels work that has not started."""
        await self._batcher.close()
        await asyncio.to_thread(self._pool.close)

    async def _map_images(
        self,
        work: Callable[[bytes | Crop, bool], Awaitable[T]],
        images: Sequence[bytes | ImageError],
        boxes: Sequence[Box] | None,
        encode: bool,
    ) -> list[T | ImageError]:
        """Run `work` for all images, or for all boxes, concurrently within the limit on images."""
        count = len(images if boxes is None else boxes)
        if count > self._settings.max_images:
            raise BodyTooLarge(f"{count} images in one request; at most {self._settings.max_images} are accepted")
        with self._limiter.admit(count):
            crops = images if boxes is None else await self._decode_boxes(images[0], boxes, encode)
            if count == 1:  # a task would cost as much as the rest
                return [await self._run_one(work, crops[0], encode)]
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._run_one(work, crop, encode)) for crop in crops]
            except ExceptionGroup as errors:  # the first failure has cancelled the other tasks
                raise errors.exceptions[0] from None
            return [task.result() for task in tasks]

    async def _run_one(
        self, work: Callable[[bytes | Crop, bool], Awaitable[T]], image: bytes | Crop | ImageError, encode: bool
    ) -> T | ImageError:
        try:
            if isinstance(image, ImageError):
                raise image
            return await work(image, encode)
        except ImageError as error:
            self._metrics.images_rejected.labels(error.code).inc()
            return error

    async def _decode_boxes(
        self, frame: bytes | ImageError, boxes: Sequence[Box], encode: bool
    ) -> Sequence[Crop | ImageError]:
        if isinstance(frame, ImageError):
            raise frame
        return await self._run_in_pool(self._pool.decode_boxes, frame, boxes, encode)

    async def _decode_image(self, image: bytes | Crop, _: bool) -> ImageArray:
        crop = image if isinstance(image, Crop) else await self._run_in_pool(self._pool.decode, image)
        return crop.pixels

    async def _embed_image(self, image: bytes | Crop, encode: bool) -> tuple[Vectors, bytes | None]:
        if isinstance(image, Crop):
            return _require_direction(await self._batcher.submit(image.pixels)), image.jpeg
        return await self._decode_and_embed(partial(self._pool.decode, image, encode))

    async def _embed_stored(self, image: bytes | Crop, _: bool) -> Vectors:
        assert isinstance(image, bytes)
        return (await self._decode_and_embed(partial(self._pool.decode_stored, image)))[0]

    async def _decode_and_embed(self, decode: Callable[[], Crop]) -> tuple[Vectors, bytes | None]:
        jpeg: bytes | None = None

        def pixels() -> ImageArray:
            nonlocal jpeg
            crop = decode()
            jpeg = crop.jpeg
            return crop.pixels

        return _require_direction(await self._batcher.submit_prepared(self._pool.executor, pixels)), jpeg

    async def _run_in_pool(self, work: Callable[..., T], *arguments: Any) -> T:
        with tracing.stage("decode"):
            return await asyncio.get_running_loop().run_in_executor(self._pool.executor, work, *arguments)

    def _embed_batch(self, crops: list[ImageArray]) -> Sequence[Vectors]:
        started = time.monotonic()
        vectors = self._engine.embed(np.stack(crops))
        self._last_success = time.monotonic()
        self._metrics.batch_size.observe(len(crops))
        self._metrics.engine_seconds.observe(self._last_success - started)
        return list(vectors)


def _require_direction(vector: Vectors) -> Vectors:
    if is_undefined(vector[None])[0]:
        raise NoEmbedding("the model returns zeros, NaN or infinity for this image, so it has no embedding")
    return vector
