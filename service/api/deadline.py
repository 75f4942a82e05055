"""The deadline of a request, and the cancellation of its work when the client disconnects."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import Request

from service.core.errors import ClientDisconnected, DeadlineExceeded

T = TypeVar("T")


class Deadline:
    """One for each request, made when its head has arrived. Use it on one event loop.

    Only work inside `enforced` is cancelled: a change of a gallery runs to its end, and its caller learns the result.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = asyncio.get_running_loop().time() + seconds
        self._timeout: asyncio.Timeout | None = None
        self._is_disconnected = False

    @asynccontextmanager
    async def enforced(self, message: str) -> AsyncIterator[None]:
        """Cancel the work inside at the deadline, or once the client has disconnected.

        Raises DeadlineExceeded with the message, or ClientDisconnected.
        """
        timeout = asyncio.timeout_at(0.0 if self._is_disconnected else self._at)
        try:
            async with timeout:
                self._timeout = timeout
                yield
        except TimeoutError:
            if not timeout.expired():
                raise  # of the work itself
            if self._is_disconnected:
                raise ClientDisconnected("the client closed the connection") from None
            raise DeadlineExceeded(message) from None
        finally:
            self._timeout = None

    def disconnect(self) -> None:
        """The client has disconnected: cancel the work in `enforced`, now and later."""
        self._is_disconnected = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(0.0)


def deadline_of(request: Request) -> Deadline:
    """The deadline of a request, which the middleware has set."""
    deadline: Deadline = request.state.deadline
    return deadline


async def run_until_disconnect(request: Request, work: Awaitable[T]) -> T:
    """The result of the work, which is cancelled at the deadline and when the client disconnects."""
    deadline = deadline_of(request)
    async with deadline.enforced(f"not answered within {deadline.seconds:g} s; send less in one request"):
        return await work
