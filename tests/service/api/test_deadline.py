"""The deadline of a request, and the cancellation of its work when the client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from service.api.deadline import Deadline
from service.core.errors import ClientDisconnected, DeadlineExceeded


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


async def wait_forever() -> None:
    await asyncio.Event().wait()


def test_all_work_of_a_request_shares_one_deadline() -> None:
    async def scenario() -> None:
        deadline = Deadline(0.05)
        for message in ("the body is late", "the result is late"):
            with pytest.raises(DeadlineExceeded, match=message):
                async with deadline.enforced(message):
                    await wait_forever()

    run(scenario())


def test_a_disconnect_cancels_the_work_now_and_later() -> None:
    async def scenario() -> None:
        deadline = Deadline(30)
        asyncio.get_running_loop().call_later(0.01, deadline.disconnect)
        for _ in range(2):
            with pytest.raises(ClientDisconnected):
                async with deadline.enforced("late"):
                    await wait_forever()

    run(scenario())


def test_work_that_refuses_cancellation_keeps_its_result() -> None:
    """As a commit does: its caller must learn the result."""

    async def commit() -> str:
        with pytest.raises(asyncio.CancelledError):
            await wait_forever()
        return "ids"

    async def scenario() -> None:
        async with Deadline(0.01).enforced("late"):
            assert await commit() == "ids"
        await asyncio.sleep(0)  # the task itself is not cancelled

    run(scenario())


def test_an_error_of_the_work_is_not_taken_for_the_deadline() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError, match="of a socket"):
            async with Deadline(30).enforced("late"):
                raise TimeoutError("of a socket")

    run(scenario())
