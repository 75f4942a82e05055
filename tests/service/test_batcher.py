"""What waits together runs together, and nobody suffers for a neighbour."""

import asyncio
import threading

import pytest

from service.batcher import Batcher
from service.errors import NotReady


def run(scenario: object) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


def test_items_that_arrive_together_run_in_full_batches_and_keep_their_answers() -> None:
    batches: list[list[int]] = []

    def square(items: list[int]) -> list[int]:
        batches.append(items)
        return [item * item for item in items]

    async def scenario() -> None:
        batcher = Batcher(square, name="test", max_batch=4, max_delay=0.05)
        answers = await asyncio.gather(*(batcher.submit(n) for n in range(10)))
        assert answers == [n * n for n in range(10)]
        await batcher.close()

    run(scenario())
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_a_lone_item_is_answered_after_the_delay() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=100, max_delay=0.01)
        assert await batcher.submit("alone") == "alone"
        await batcher.close()

    run(scenario())


def test_an_error_fails_its_batch_and_the_next_batch_runs() -> None:
    def fail_once(items: list[str]) -> list[str]:
        if "poison" in items:
            raise ValueError("poison")
        return items

    async def scenario() -> None:
        batcher = Batcher(fail_once, name="test", max_batch=2, max_delay=0.01)
        first = await asyncio.gather(batcher.submit("poison"), batcher.submit("mate"), return_exceptions=True)
        assert [str(error) for error in first] == ["poison", "poison"]
        assert await batcher.submit("later") == "later"
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
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, name="test", max_batch=2, max_delay=60.0)
        waiting = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        await batcher.close()
        with pytest.raises(NotReady, match="stopping"):
            await waiting
        with pytest.raises(NotReady, match="stopping"):
            await batcher.submit(2)

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
