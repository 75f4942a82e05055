"""Limits the requests in progress, and the memory of all request bodies.

A refusal is sent before the body is read, so that it costs little: under ten times the load that a service can handle
it would otherwise spend its time on refusals.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.body_budget import BodyBudget
from service.api.problems import problem_response
from service.batching.limiter import ConcurrencyLimiter
from service.core.errors import Overloaded

PAGE = 16  # requests that a list counts as: a page of 1,000 entries needs some megabytes
# The limited calls, by method and last segment of the path.
_REQUESTS = frozenset(("POST", name) for name in ("embeddings", "compare", "explain", "search", "entries"))
_LISTS = frozenset((method, name) for method in ("GET", "HEAD") for name in ("entries", "persons", "audit"))
_STREAMS = frozenset(("POST", name) for name in ("stream", "import"))


class LoadSheddingMiddleware:
    """ASGI middleware. A limited request counts until its response is sent.

    Streams have a limit of their own, because a stream may last for hours. Requests without a valid key count as well,
    but only shortly: keys are checked before bodies are read.
    """

    def __init__(
        self, app: ASGIApp, budget: BodyBudget, requests: ConcurrencyLimiter, streams: ConcurrencyLimiter, page: int
    ) -> None:
        """`requests` limits the calls that must finish before their deadline, `streams` the others.

        `page` is the number of requests that a list counts as.
        """
        self._app = app
        self._budget = budget
        self._limits = {
            **dict.fromkeys(_REQUESTS, (requests, 1)),
            **dict.fromkeys(_LISTS, (requests, page)),
            **dict.fromkeys(_STREAMS, (streams, 1)),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        found = self._limits.get((scope["method"], scope["path"].rpartition("/")[2]))
        if found is None:
            await self._serve(scope, receive, send)
            return
        limiter, count = found
        try:
            limiter.check_capacity(count)
        except Overloaded as refusal:
            await problem_response(refusal, scope["state"]["request_id"])(scope, receive, send)
        else:
            with limiter.admit(count):
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes of the body until the response is sent. Reading the body raises Overloaded."""
        with self._budget.share() as share:

            async def receive_within_budget() -> Message:
                message = await receive()
                if not share.is_stream:
                    share.take(len(message.get("body", b"")))
                return message

            scope["share"] = share
            await self._app(scope, receive_within_budget, send)
