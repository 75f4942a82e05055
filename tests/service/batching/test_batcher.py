"""What waits together runs together, and nobody suffers for a neighbour."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from service.batching.batcher import Batcher
from service.core.errors import NotReady


def run(scenario: object) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


def test_items_that_are_made_together_run_in_full_batches_and_keep_their_answers() -> None:
    batches: list[list[int]] = []
    begun, last = threading.Barrier(10, timeout=10), threading.Event()

    def square(items: list[int]) -> list[int]:
        batches.append(items)
        return [item * item for item in items]

    def make(n: int) -> int:
        begun.wait()
        assert n < 9 or last.wait(10)
        return n

    async def scenario() -> None:
        batcher = Batcher(square, name="test", max_batch=4, max_delay=60.0)
        with ThreadPoolExecutor(10) as makers:
            answers = asyncio.gather(*(batcher.submit_prepared(makers, partial(make, n)) for n in range(10)))
            while len(batches) < 2:
                await asyncio.sleep(0.001)
            last.set()  # the batch of what is left has waited for it
            assert await answers == [n * n for n in range(10)]
        await batcher.close()

    run(scenario())
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_a_lone_item_waits_for_nobody() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=60.0)
        assert await batcher.submit("alone") == "alone"
        with ThreadPoolExecutor(1) as makers:
            assert await batcher.submit_prepared(makers, lambda: "made") == "made"
        await batcher.close()

    run(scenario())


def test_an_item_waits_for_one_that_is_being_made_and_no_longer_than_the_delay() -> None:
    gate = threading.Event()

    def slow() -> str:
        gate.wait(10)
        return "late"

    async def scenario() -> None:
        batcher = Batcher(lambda items: [len(items)] * len(items), name="test", max_batch=100, max_delay=0.05)
        with ThreadPoolExecutor(2) as makers:
            late = asyncio.create_task(batcher.submit_prepared(makers, slow))
            assert await batcher.submit_prepared(makers, lambda: "quick") == 1
            gate.set()
            assert await late == 1
        await batcher.close()

    run(scenario())


def test_callers_who_ask_again_and_again_come_to_share_a_batch_and_none_is_waited_for_that_stays_away() -> None:
    sizes: list[int] = []

    def work(items: list[int]) -> list[int]:
        time.sleep(0.05)
        sizes.append(len(items))
        return items

    async def scenario() -> None:
        batcher = Batcher(work, name="test", max_batch=100, max_delay=0.0, patience=1.0)

        async def caller(number: int) -> None:
            for _ in range(number):
                await batcher.submit(number)

        await batcher.submit(0)  # so that the callers do not begin together
        await asyncio.gather(*(caller(number) for number in (6, 6, 6, 6, 7)))
        await batcher.close()

    run(scenario())
    assert sizes[2:-2] == [5] * (len(sizes) - 4)
    assert sizes[-1] == 1


def test_an_item_that_cannot_be_made_fails_alone_and_nobody_waits_for_it() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=60.0)
        with ThreadPoolExecutor(1) as makers:
            broken = batcher.submit_prepared(makers, lambda: 1 // 0)
            found = await asyncio.gather(broken, batcher.submit_prepared(makers, lambda: 7), return_exceptions=True)
            assert isinstance(found[0], ZeroDivisionError)
            assert found[1] == 7
        await batcher.close()

    run(scenario())


def test_a_cancelled_item_is_not_made_and_nobody_waits_for_it() -> None:
    made: list[str] = []
    gate = threading.Event()

    def make(name: str) -> str:
        made.append(name)
        gate.wait(10)
        return name

    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=60.0)
        with ThreadPoolExecutor(1) as makers:
            wanted = asyncio.create_task(batcher.submit_prepared(makers, lambda: make("wanted")))
            unwanted = asyncio.create_task(batcher.submit_prepared(makers, lambda: make("unwanted")))
            while not made:
                await asyncio.sleep(0.001)
            unwanted.cancel()
            await asyncio.gather(unwanted, return_exceptions=True)
            gate.set()
            assert await wanted == "wanted"
        await batcher.close()

    run(scenario())
    assert made == ["wanted"]


def test_an_error_fails_its_batch_and_the_next_batch_runs() -> None:
    def fail_once(items: list[str]) -> list[str]:
        if "poison" in items:
            raise ValueError("poison")
        return items

    async def scenario() -> None:
        batcher = Batcher(fail_once, name="test", max_batch=2, max_delay=60.0)
        with ThreadPoolExecutor(2) as makers:
            together = threading.Barrier(2, timeout=10)

            def make(name: str) -> str:
                together.wait()
                return name

            both = [batcher.submit_prepared(makers, partial(make, name)) for name in ("poison", "mate")]
            first = await asyncio.gather(*both, return_exceptions=True)
        assert [str(error) for error in first] == ["poison", "poison"]
        assert await batcher.submit("later") == "later"
        await batcher.close()

    run(scenario())


class Ends(BaseException):
    """As a panic of native code comes: no Exception."""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_ends_a_thread_is_told_to_all_who_wait_and_who_come(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    entered, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def end(_: list[str]) -> list[str]:
        entered.set()
        gate.wait(10)
        raise Ends("a secret")

    async def scenario() -> None:
        batcher = Batcher(end, name="test", max_batch=1, max_delay=0.0, workers=workers, failed=ended.set)
        batcher.require_running()
        waiting = [asyncio.create_task(batcher.submit(name)) for name in ("runs", "waits", "waits")]
        await asyncio.to_thread(entered.wait, 10)
        gate.set()
        for one in waiting:
            with pytest.raises(NotReady, match=r"the test thread ended \(Ends\); restart the service"):
                await asyncio.wait_for(one, 10)
        with pytest.raises(NotReady, match="restart"):
            await batcher.submit("later")
        with pytest.raises(NotReady, match="restart"):
            batcher.require_running()
        await batcher.close()

    run(scenario())
    assert ended.is_set()
    assert "the test thread ended" in caplog.text
    assert "a secret" in caplog.text


def test_an_item_whose_making_ends_in_no_exception_fails_alone() -> None:
    def end() -> str:
        raise Ends

    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=2, max_delay=0.0)
        with ThreadPoolExecutor(1) as makers:
            with pytest.raises(RuntimeError, match="Ends"):
                await asyncio.wait_for(batcher.submit_prepared(makers, end), 10)
            assert await batcher.submit_prepared(makers, lambda: "next") == "next"
        await batcher.close()

    run(scenario())


def test_an_answer_of_the_wrong_length_is_an_error_and_no_hang() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda _: [], name="test", max_batch=2, max_delay=0.0)
        for _ in range(2):
            with pytest.raises(ValueError, match="argument 2 is shorter"):
                await batcher.submit(1)
        await batcher.close()

    run(scenario())


def test_a_cancelled_item_leaves_the_queue_and_is_never_run() -> None:
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

    run(scenario())
    assert ran == ["busy", "wanted"]


def test_closing_ends_those_who_wait_and_refuses_new_ones() -> None:
    gate = threading.Event()

    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=3, max_delay=60.0)
        with ThreadPoolExecutor(1) as makers:
            making = asyncio.create_task(batcher.submit_prepared(makers, lambda: gate.wait(10)))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(batcher.submit(1))  # for the one that is being made
            await asyncio.sleep(0.01)
            await batcher.close()
            gate.set()
            for ended in (making, waiting, batcher.submit(2), batcher.submit_prepared(makers, lambda: 3)):
                with pytest.raises(NotReady, match="stopping"):
                    await ended

    run(scenario())


def test_several_workers_run_batches_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(items: list[int]) -> list[int]:
        both.wait()
        return items

    async def scenario() -> None:
        batcher = Batcher(meet, name="test", max_batch=1, max_delay=0.0, workers=2)
        assert await asyncio.gather(batcher.submit(1), batcher.submit(2)) == [1, 2]
        await batcher.close()

    run(scenario())
