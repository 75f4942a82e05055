"""A budget over the bodies of all requests together: many of them at once must not take all memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded


class Intake:
    """ASGI middleware. A request holds what was read of its body until it is answered."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; reading its body raises Overloaded where that is over the budget."""
        own = 0

        async def receive_within_budget() -> Message:
            nonlocal own
            message = await receive()
            size = len(message.get("body", b""))
            if self._held + size > self._most:
                raise Overloaded(f"bodies of {self._held:,} bytes are being worked on; try again in 1 s", 1)
            self._held += size
            own += size
            return message

        def let_go(size: int) -> None:
            nonlocal own
            self._held -= size
            own -= size

        scope["let_go"] = let_go  # for who works on a body while it arrives, and drops what it has worked on
        try:
            await self._app(scope, receive_within_budget, send)
        finally:
            self._held -= own
