"""What is let in: so many requests that ask for work, and a budget over the bodies of all requests together.

A refusal must cost next to nothing, so it is given before the request is read: a service that is asked for ten times
what it can do would else spend its time on saying so. And many bodies at once must not take all memory.
"""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import Admission
from service.answers import problem_of
from service.errors import Overloaded

WORK = frozenset({"embeddings", "compare", "explain", "search", "entries"})  # how the paths of such calls end

_PATIENCE = 60.0  # seconds that a stream which has begun waits for room
_LOOK_AGAIN = 0.05


class Intake:
    """ASGI middleware. A request that embeds or searches holds a place until it is answered.

    So do those whose caller turns out to have no key, but not for long: keys are looked at before bodies are read.
    """

    def __init__(self, app: ASGIApp, most: int, places: Admission) -> None:
        """`most` is bytes of bodies."""
        self._app = app
        self._most = most
        self._places = places
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["method"] != "POST" or scope["path"].rpartition("/")[2] not in WORK:
            await self._within_budget(scope, receive, send)
            return
        try:
            self._places.require_room()
        except Overloaded as refusal:
            await problem_of(refusal, scope["state"]["request_id"])(scope, receive, send)
        else:
            with self._places.admit():
                await self._within_budget(scope, receive, send)

    async def _within_budget(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request holds what was read of its body until it is answered; reading it raises Overloaded."""
        own = 0

        async def receive_within_budget() -> Message:
            nonlocal own
            message = await receive()
            size = len(message.get("body", b""))
            give_up = time.monotonic() + (_PATIENCE if scope.get("patient") else 0)
            while self._held + size > self._most:
                if time.monotonic() >= give_up:
                    raise Overloaded(f"bodies of {self._held:,} bytes are being worked on; try again in 1 s", 1)
                await asyncio.sleep(_LOOK_AGAIN)
            self._held += size
            own += size
            return message

        def let_go(size: int) -> None:
            nonlocal own
            self._held -= size
            own -= size

        # For who works on a body while it arrives, and drops what it has worked on; it may set scope["patient"], too.
        scope["let_go"] = let_go
        try:
            await self._app(scope, receive_within_budget, send)
        finally:
            self._held -= own
