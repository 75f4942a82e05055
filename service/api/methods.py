"""HTTP methods and paths: HEAD for every GET, the header `Allow`, and ids in paths."""

from collections.abc import Iterable, Sequence

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class _Digits(Convertor[str]):
    """A number of at most 19 digits. Starlette's `int` fails on a number of 5,000 digits."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> str:
        """The digits."""
        return value

    def to_string(self, value: str) -> str:
        """The digits."""
        return value


def register_digits() -> None:
    """Allow parts `{name:digits}` in paths."""
    register_url_convertor("digits", _Digits())


class HeadAsGet:
    """ASGI middleware. Answers HEAD as GET; the server sends no body, because it still sees HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send)
        finally:
            scope.update({name: value for name, value in inner.items() if name not in scope})  # the route, for the log


def allowed_methods(routers: Sequence[APIRouter], scope: Scope) -> str:
    """The value of `Allow` for the path of a request: the methods of all matching routes."""
    routes: Iterable[Route] = (route for router in routers for route in router.routes if isinstance(route, Route))
    methods = {
        method for route in routes if route.matches(scope)[0] is not Match.NONE for method in route.methods or ()
    }
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
