"""What is let in: so many requests that ask for work, and a budget over the bodies of all requests together.

A refusal must cost next to nothing, so it is given before the request is read: a service that is asked for ten times
what it can do would else spend its time on saying so. And many bodies at once must not take all memory.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.body_budget import BodyBudget
from service.api.problems import problem_response
from service.batching.limiter import ConcurrencyLimiter
from service.core.errors import Overloaded

# How the paths of calls end.
WORK = frozenset({"embeddings", "compare", "explain", "search", "entries"})
STREAMS = frozenset({"stream", "import"})


class LoadSheddingMiddleware:
    """ASGI middleware. A request that embeds or searches holds a place until it is answered, and so does a stream; they
    have places of their own, as a stream may stay for hours.

    So do those whose caller turns out to have no key, but not for long: keys are looked at before bodies are read.
    """

    def __init__(
        self, app: ASGIApp, budget: BodyBudget, places: ConcurrencyLimiter, streams: ConcurrencyLimiter
    ) -> None:
        """`places` are of requests that are answered within their time, `streams` of those that may take longer."""
        self._app = app
        self._budget = budget
        self._admissions = {**dict.fromkeys(WORK, places), **dict.fromkeys(STREAMS, streams)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        admission = self._admissions.get(scope["path"].rpartition("/")[2]) if scope["method"] == "POST" else None
        if admission is None:
            await self._within_budget(scope, receive, send)
            return
        try:
            admission.check_capacity()
        except Overloaded as refusal:
            await problem_response(refusal, scope["state"]["request_id"])(scope, receive, send)
        else:
            with admission.admit():
                await self._within_budget(scope, receive, send)

    async def _within_budget(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request holds what was read of its body until it is answered; reading it raises Overloaded."""
        with self._budget.share() as share:

            async def receive_within_budget() -> Message:
                message = await receive()
                if not share.is_stream:
                    share.take(len(message.get("body", b"")))
                return message

            scope["share"] = share
            await self._app(scope, receive_within_budget, send)
