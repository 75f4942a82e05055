"""The dynamic batcher: batches, errors, cancellation and shutdown."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from service.batching.batcher import Batcher
from service.core.errors import NotReady


def test_closed_loop_clients_share_batches_and_a_finished_client_is_not_waited_for() -> None:
    sizes: list[int] = []

    def work(items: list[int]) -> list[int]:
        time.sleep(0.05)
        sizes.append(len(items))
        return items

    async def scenario() -> None:
        batcher = Batcher(work, name="test", max_batch=100, max_delay=0.0, linger_factor=1.0)

        async def client(number: int) -> None:
            for _ in range(number):
                await batcher.submit(number)

        await batcher.submit(0)  # so that the clients do not start together
        await asyncio.gather(*(client(number) for number in (6, 6, 6, 6, 7)))
        await batcher.close()

    asyncio.run(scenario())
    assert sizes[2:-2] == [5] * (len(sizes) - 4)
    assert sizes[-1] == 1


def test_an_error_fails_its_batch_and_the_next_batch_runs() -> None:
    def fail_once(items: list[str]) -> list[str]:
        if "poison" in items:
            raise ValueError("poison")
        return items

    async def scenario() -> None:
        batcher = Batcher(fail_once, name="test", max_batch=2, max_delay=60.0)
        with ThreadPoolExecutor(2) as executor:
            together = threading.Barrier(2, timeout=10)

            def prepare(name: str) -> str:
                together.wait()
                return name

            both = [batcher.submit_prepared(executor, partial(prepare, name)) for name in ("poison", "mate")]
            first = await asyncio.gather(*both, return_exceptions=True)
        assert [str(error) for error in first] == ["poison", "poison"]
        assert await batcher.submit("later") == "later"
        await batcher.close()

    asyncio.run(scenario())


class Panic(BaseException):
    """Like a panic of native code: not an Exception."""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_ends_a_thread_fails_queued_and_new_items(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    entered, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def panic(_: list[str]) -> list[str]:
        entered.set()
        gate.wait(10)
        raise Panic("a secret")

    async def scenario() -> None:
        batcher = Batcher(panic, name="test", max_batch=1, max_delay=0.0, workers=workers, on_thread_failure=ended.set)
        batcher.require_running()
        waiting = [asyncio.create_task(batcher.submit(name)) for name in ("runs", "waits", "waits")]
        await asyncio.to_thread(entered.wait, 10)
        gate.set()
        for one in waiting:
            with pytest.raises(NotReady, match=r"the test thread ended \(Panic\); restart the service"):
                await asyncio.wait_for(one, 10)
        with pytest.raises(NotReady, match="restart"):
            await batcher.submit("later")
        with pytest.raises(NotReady, match="restart"):
            batcher.require_running()
        await batcher.close()

    asyncio.run(scenario())
    assert ended.is_set()
    assert "the test thread ended" in caplog.text
    assert "a secret" in caplog.text


def test_a_wrong_number_of_results_is_an_error() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda _: [], name="test", max_batch=2, max_delay=0.0)
        for _ in range(2):
            with pytest.raises(ValueError, match="argument 2 is shorter"):
                await batcher.submit(1)
        await batcher.close()

    asyncio.run(scenario())


def test_a_cancelled_item_leaves_the_queue_and_never_runs() -> None:
    ran: list[str] = []
    gate = threading.Event()

    def work(items: list[str]) -> list[str]:
        ran.extend(items)
        gate.wait(10)
        return items

    async def scenario() -> None:
        batcher = Batcher(work, name="test", max_batch=1, max_delay=0.0)
        busy = asyncio.create_task(batcher.submit("busy"))
        while not ran:
            await asyncio.sleep(0.001)
        unwanted = asyncio.create_task(batcher.submit("unwanted"))
        wanted = asyncio.create_task(batcher.submit("wanted"))
        await asyncio.sleep(0)
        unwanted.cancel()
        gate.set()
        assert await asyncio.gather(busy, wanted) == ["busy", "wanted"]
        await batcher.close()

    asyncio.run(scenario())
    assert ran == ["busy", "wanted"]


def test_close_fails_queued_items_and_refuses_new_ones() -> None:
    gate = threading.Event()

    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=3, max_delay=60.0)
        with ThreadPoolExecutor(1) as executor:
            preparing = asyncio.create_task(batcher.submit_prepared(executor, lambda: gate.wait(10)))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(batcher.submit(1))  # for the item in preparation
            await asyncio.sleep(0.01)
            await batcher.close()
            gate.set()
            for ended in (preparing, waiting, batcher.submit(2), batcher.submit_prepared(executor, lambda: 3)):
                with pytest.raises(NotReady, match="stopping"):
                    await ended

    asyncio.run(scenario())


def test_several_workers_run_batches_concurrently() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(items: list[int]) -> list[int]:
        both.wait()
        return items

    async def scenario() -> None:
        batcher = Batcher(meet, name="test", max_batch=1, max_delay=0.0, workers=2)
        assert await asyncio.gather(batcher.submit(1), batcher.submit(2)) == [1, 2]
        await batcher.close()

    asyncio.run(scenario())
