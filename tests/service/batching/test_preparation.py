"""Items that another thread prepares before they join a batch, such as images to decode."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from service.batching.batcher import Batcher


def test_items_prepared_together_run_in_full_batches_and_get_their_own_results() -> None:
    batches: list[list[int]] = []
    begun, last = threading.Barrier(10, timeout=10), threading.Event()

    def square(items: list[int]) -> list[int]:
        batches.append(items)
        return [item * item for item in items]

    def prepare(n: int) -> int:
        begun.wait()
        assert n < 9 or last.wait(10)
        return n

    async def scenario() -> None:
        batcher = Batcher(square, name="test", max_batch=4, max_delay=60.0)
        with ThreadPoolExecutor(10) as executor:
            answers = asyncio.gather(*(batcher.submit_prepared(executor, partial(prepare, n)) for n in range(10)))
            while len(batches) < 2:
                await asyncio.sleep(0.001)
            last.set()  # the third batch waits for this item
            assert await answers == [n * n for n in range(10)]
        await batcher.close()

    asyncio.run(scenario())
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_a_single_item_runs_without_delay() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=60.0)
        assert await batcher.submit("alone") == "alone"
        with ThreadPoolExecutor(1) as executor:
            assert await batcher.submit_prepared(executor, lambda: "prepared") == "prepared"
        await batcher.close()

    asyncio.run(scenario())


def test_an_item_waits_for_items_in_preparation_up_to_the_maximum_delay() -> None:
    gate = threading.Event()

    def slow() -> str:
        gate.wait(10)
        return "late"

    async def scenario() -> None:
        batcher = Batcher(lambda items: [len(items)] * len(items), name="test", max_batch=100, max_delay=0.05)
        with ThreadPoolExecutor(2) as executor:
            late = asyncio.create_task(batcher.submit_prepared(executor, slow))
            assert await batcher.submit_prepared(executor, lambda: "quick") == 1
            gate.set()
            assert await late == 1
        await batcher.close()

    asyncio.run(scenario())


def test_a_failed_preparation_fails_only_its_item_and_does_not_delay_the_batch() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=60.0)
        with ThreadPoolExecutor(1) as executor:
            broken = batcher.submit_prepared(executor, lambda: 1 // 0)
            found = await asyncio.gather(broken, batcher.submit_prepared(executor, lambda: 7), return_exceptions=True)
            assert isinstance(found[0], ZeroDivisionError)
            assert found[1] == 7
        await batcher.close()

    asyncio.run(scenario())


def test_a_cancelled_item_is_not_prepared_and_does_not_delay_the_batch() -> None:
    prepared: list[str] = []
    gate = threading.Event()

    def prepare(name: str) -> str:
        prepared.append(name)
        gate.wait(10)
        return name

    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=60.0)
        with ThreadPoolExecutor(1) as executor:
            wanted = asyncio.create_task(batcher.submit_prepared(executor, lambda: prepare("wanted")))
            unwanted = asyncio.create_task(batcher.submit_prepared(executor, lambda: prepare("unwanted")))
            while not prepared:
                await asyncio.sleep(0.001)
            unwanted.cancel()
            await asyncio.gather(unwanted, return_exceptions=True)
            gate.set()
            assert await wanted == "wanted"
        await batcher.close()

    asyncio.run(scenario())
    assert prepared == ["wanted"]


def test_a_base_exception_in_a_preparation_fails_only_its_item() -> None:
    class Panic(BaseException):
        """Like a panic of native code: not an Exception."""

    def panic() -> str:
        raise Panic

    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=2, max_delay=0.0)
        with ThreadPoolExecutor(1) as executor:
            with pytest.raises(RuntimeError, match="Panic"):
                await asyncio.wait_for(batcher.submit_prepared(executor, panic), 10)
            assert await batcher.submit_prepared(executor, lambda: "next") == "next"
        await batcher.close()

    asyncio.run(scenario())
