"""The embedder: batching across requests, limits, deadlines, cancellation and failures."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from bundle import ImageError, load_crop
from service.core.errors import BodyTooLarge, EngineFailed, Overloaded
from service.core.settings import Settings
from service.inference.embedder import Embedder
from service.inference.engine import Engine
from service.observability.metrics import Metrics
from tests.support.bundles import HEIGHT, SIGNATURE, WIDTH, onnx_runner, reference_embedding
from tests.support.pictures import png


class Gated(Engine):
    """The real engine, with a gate that blocks it and a fault that can be switched on."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(onnx_runner(bundle), SIGNATURE)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.broken = False
        self.sizes: list[int] = []

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.entered.set()
        self.gate.wait(30)
        if self.broken:
            raise EngineFailed("switched off")
        self.sizes.append(len(crops))
        return super().embed(crops)


def scenario(bundle: Path, play: Callable[[Embedder, Gated], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        engine = Gated(bundle)
        embedder = Embedder(engine, Settings(bundle=bundle, data=bundle, **settings), Metrics())  # type: ignore[arg-type]
        try:
            await play(embedder, engine)
        finally:
            engine.gate.set()
            await embedder.close()

    asyncio.run(run())


def expected(data: bytes) -> np.ndarray:
    return reference_embedding(load_crop(data, HEIGHT, WIDTH)[None])[0]


def test_a_bad_image_fails_alone_and_the_order_is_kept(bundle: Path) -> None:
    async def play(embedder: Embedder, _: Gated) -> None:
        outcomes = await embedder.embed([png(1), b"not a picture", png(2), png(3)[:200]])
        np.testing.assert_allclose(outcomes[0], expected(png(1)), atol=1e-5)
        np.testing.assert_allclose(outcomes[2], expected(png(2)), atol=1e-5)
        assert [type(outcome).__name__ for outcome in (outcomes[1], outcomes[3])] == [
            "UnsupportedImage",
            "CorruptImage",
        ]

    scenario(bundle, play)


def test_images_of_concurrent_requests_share_a_batch(bundle: Path) -> None:
    async def play(embedder: Embedder, engine: Gated) -> None:
        answers = await asyncio.gather(*(embedder.embed([png(n)]) for n in range(8)))
        for n, (vector,) in enumerate(answers):
            np.testing.assert_allclose(vector, expected(png(n)), atol=1e-5)
        assert sum(engine.sizes) == 8
        assert len(engine.sizes) < 8

    scenario(bundle, play, max_delay=0.5, max_batch=8)


def test_a_request_over_the_limit_gets_retry_after_and_succeeds_later(bundle: Path) -> None:
    async def play(embedder: Embedder, engine: Gated) -> None:
        engine.gate.clear()
        first = asyncio.create_task(embedder.embed([png(1), png(2)]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await embedder.embed([png(3), png(4)])
        assert refused.value.retry_after >= 1
        third = asyncio.create_task(embedder.embed([png(3)]))  # the limit allows one more
        engine.gate.set()
        assert len(await first) == 2
        assert len(await third) == 1
        assert len(await embedder.embed([png(3), png(4)])) == 2

    scenario(bundle, play, max_queue=3, max_images=3)


def test_too_many_images_in_one_request_are_refused(bundle: Path) -> None:
    async def play(embedder: Embedder, _: Gated) -> None:
        with pytest.raises(BodyTooLarge, match="5 images in one request; at most 4"):
            await embedder.embed([png(1)] * 5)

    scenario(bundle, play, max_images=4)


def test_a_request_past_its_deadline_leaves_the_limiter(bundle: Path) -> None:
    async def play(embedder: Embedder, engine: Gated) -> None:
        engine.gate.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await embedder.embed([png(1)])
        engine.gate.set()
        assert len(await embedder.embed([png(2)])) == 1

    scenario(bundle, play, max_queue=1, max_images=1)


def test_a_cancelled_request_never_reaches_the_engine(bundle: Path) -> None:
    async def play(embedder: Embedder, engine: Gated) -> None:
        engine.gate.clear()
        busy = asyncio.create_task(embedder.embed([png(1)]))
        await asyncio.to_thread(engine.entered.wait)
        unwanted = asyncio.create_task(embedder.embed([png(n) for n in range(4)]))
        await asyncio.sleep(0.1)
        unwanted.cancel()
        await asyncio.gather(unwanted, return_exceptions=True)
        engine.gate.set()
        await busy
        assert len(await embedder.embed([png(9)])) == 1
        assert engine.sizes == [1, 1]

    scenario(bundle, play, max_batch=1)


def test_an_engine_failure_fails_its_own_requests_only(bundle: Path) -> None:
    async def play(embedder: Embedder, engine: Gated) -> None:
        engine.broken = True
        with pytest.raises(EngineFailed, match="switched off"):
            await embedder.embed([png(1), png(2)])
        with pytest.raises(EngineFailed):
            await embedder.probe()
        assert embedder.seconds_since_success == float("inf")
        engine.broken = False
        assert not isinstance((await embedder.embed([png(1)]))[0], ImageError)
        assert embedder.seconds_since_success < 60

    scenario(bundle, play)
