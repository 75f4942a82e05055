"""From encoded pictures to embeddings: admission, decode pool, micro-batcher, engine.

A picture that cannot be used fails alone. Work is admitted up to a bound, so a queue never grows beyond what can be
answered in time; what is over the bound is told when to come back.
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
from service.core.errors import BodyTooLarge, DeadlineExceeded, EngineFailed, NoEmbedding
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

_PATIENCE = 1.0  # seconds for which what is not urgent waits behind the requests
_LOOK_AGAIN = 0.02
_LINGER = 0.1  # of the time of a batch: fuller ones, and nobody who computes is disturbed by the next requests


class Embedder:
    """Everything between the bytes of a picture and its embedding. Lives on one event loop."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._decoders = DecodePool(engine.height, engine.width, settings.images)
        self.health = WorkerHealth("engine", metrics)
        self._batcher: Batcher[ImageArray, Vectors] = Batcher(
            self._embed_batch,
            name="engine",
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            linger_factor=_LINGER,
            on_thread_start=isolate_engine_driver,
            on_thread_failure=partial(self.health.report, failed=True),
        )
        self._admission = ConcurrencyLimiter("images", settings.max_queue, metrics.images_admitted)
        self._last_success = -math.inf

    @property
    def dim(self) -> int:
        """D of the vectors."""
        return self._engine.dim

    @property
    def seconds_since_success(self) -> float:
        """Age of the last batch that the engine embedded; infinite before the first."""
        return time.monotonic() - self._last_success

    @property
    def decoding_stuck_for(self) -> float:
        """Seconds by which a picture is over the time in which it must be decoded; 0 where none is."""
        return self._decoders.overdue

    def require_running(self) -> None:
        """Raises NotReady where the engine's thread ended."""
        self._batcher.require_running()

    async def embed(
        self, images: Sequence[bytes | ImageError], boxes: Sequence[Box] | None = None
    ) -> list[Vectors | ImageError]:
        """One (D,) unit vector, or the reason why there is none, for each picture; errors given are passed through.

        With boxes there is one picture, a frame, and one outcome for each box; then what is wrong with the frame is
        raised. Raises BodyTooLarge, Overloaded, DeadlineExceeded or EngineFailed for the whole request.
        """
        outcomes = await self._each(self._embed, images, boxes, keep=False)
        return [one if isinstance(one, ImageError) else one[0] for one in outcomes]

    async def embed_keeping(
        self, images: Sequence[bytes | ImageError], boxes: Sequence[Box] | None = None
    ) -> list[tuple[Vectors, bytes | None] | ImageError]:
        """As `embed`, and with each vector the crop as a gallery keeps it."""
        return await self._each(self._embed, images, boxes, keep=True)

    async def crops(
        self, images: Sequence[bytes | ImageError], boxes: Sequence[Box] | None = None
    ) -> list[ImageArray | ImageError]:
        """What the network would see of each picture, (H, W, 3) uint8 RGB, or the reason why it cannot. As `embed`."""
        return await self._each(self._prepare, images, boxes, keep=False)

    async def embed_background(self, images: Sequence[bytes]) -> list[Vectors | ImageError]:
        """As `embed`, of crops that were kept, and behind the requests: once none is there, or none has gone away for
        a while.
        """
        give_up = time.monotonic() + _PATIENCE
        while self._admission.busy and time.monotonic() < give_up:
            await asyncio.sleep(_LOOK_AGAIN)
        outcomes: list[Vectors | ImageError] = []
        for start in range(0, len(images), self._settings.max_images):
            batch = images[start : start + self._settings.max_images]
            outcomes += await self._each(self._embed_kept, batch, None, keep=False)
        return outcomes

    async def kept(self, image: bytes) -> bytes:
        """A picture that was kept elsewhere, encoded anew as every crop that is kept here. Raises ImageError.

        It takes no place among the requests: who has many gives one at a time.
        """
        return await self._on_decoder(self._decoders.reencode, image)

    async def probe(self) -> None:
        """Push one grey picture through the engine, past admission: does it still answer?"""
        async with asyncio.timeout(self._settings.request_timeout):
            try:
                _require_direction(await self._batcher.submit(self._engine.grey()[0]))
            except NoEmbedding as error:
                raise EngineFailed(f"a grey picture: {error}; check the bundle with `pan-export verify`") from None

    async def close(self) -> None:
        """Stop; waiting work is cancelled."""
        await self._batcher.close()
        await asyncio.to_thread(self._decoders.close)

    async def _each(
        self,
        work: Callable[[bytes | Crop, bool], Awaitable[T]],
        images: Sequence[bytes | ImageError],
        boxes: Sequence[Box] | None,
        keep: bool,
    ) -> list[T | ImageError]:
        count = len(images if boxes is None else boxes)
        if count > self._settings.max_images:
            raise BodyTooLarge(f"{count} images in one request; at most {self._settings.max_images} are accepted")
        with self._admission.admit(count):
            try:
                async with asyncio.timeout(self._settings.request_timeout), asyncio.TaskGroup() as group:
                    crops = images if boxes is None else await self._cut(images[0], boxes, keep)
                    tasks = [group.create_task(self._one(work, crop, keep)) for crop in crops]
            except TimeoutError:
                raise DeadlineExceeded(
                    f"not embedded within {self._settings.request_timeout:g} s; send fewer images at a time"
                ) from None
            except ExceptionGroup as errors:  # the first failure has cancelled the rest
                raise errors.exceptions[0] from None
            return [task.result() for task in tasks]

    async def _one(
        self, work: Callable[[bytes | Crop, bool], Awaitable[T]], image: bytes | Crop | ImageError, keep: bool
    ) -> T | ImageError:
        try:
            if isinstance(image, ImageError):
                raise image
            return await work(image, keep)
        except ImageError as error:
            self._metrics.images_rejected.labels(error.code).inc()
            return error

    async def _cut(self, frame: bytes | ImageError, boxes: Sequence[Box], keep: bool) -> Sequence[Crop | ImageError]:
        if isinstance(frame, ImageError):
            raise frame
        return await self._on_decoder(self._decoders.crops, frame, boxes, keep)

    async def _embed(self, image: bytes | Crop, keep: bool) -> tuple[Vectors, bytes | None]:
        if isinstance(image, Crop):
            return _require_direction(await self._batcher.submit(image.pixels)), image.kept
        return await self._embed_made(partial(self._decoders.crop, image, keep))

    async def _embed_kept(self, image: bytes | Crop, _: bool) -> Vectors:
        assert isinstance(image, bytes)
        return (await self._embed_made(partial(self._decoders.kept_crop, image)))[0]

    async def _embed_made(self, make: Callable[[], Crop]) -> tuple[Vectors, bytes | None]:
        kept: bytes | None = None

        def pixels() -> ImageArray:
            nonlocal kept
            crop = make()
            kept = crop.kept
            return crop.pixels

        return _require_direction(await self._batcher.submit_prepared(self._decoders.executor, pixels)), kept

    async def _prepare(self, image: bytes | Crop, _: bool) -> ImageArray:
        crop = image if isinstance(image, Crop) else await self._on_decoder(self._decoders.crop, image)
        return crop.pixels

    async def _on_decoder(self, work: Callable[..., T], *arguments: Any) -> T:
        with tracing.part("decode"):
            return await asyncio.get_running_loop().run_in_executor(self._decoders.executor, work, *arguments)

    def _embed_batch(self, crops: list[ImageArray]) -> Sequence[Vectors]:
        started = time.monotonic()
        vectors = self._engine.embed(np.stack(crops))
        self._last_success = time.monotonic()
        self._metrics.batch_size.observe(len(crops))
        self._metrics.engine_seconds.observe(self._last_success - started)
        return list(vectors)


def _require_direction(vector: Vectors) -> Vectors:
    if is_undefined(vector[None])[0]:
        raise NoEmbedding("the model finds nothing in this picture: its features vanish, so it has no embedding")
    return vector
