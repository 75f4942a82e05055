"""A request to the API as data: its content, the parser of its response, and the retry policy."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from operator import index
from typing import Any, Generic, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from pan_reid.errors import ClientError, api_error, no_answer
from pan_reid.schemas import GalleryName

T = TypeVar("T")

LONGEST_IMPORT = 600.0  # seconds without data from the service, which builds the index at the end
_RETRIED = (429, 503)
_LONGEST_WAIT = 60.0
_MOST_LOST = 2  # retries after a failed connection
_NAME: TypeAdapter[str] = TypeAdapter(GalleryName)
_JSON_FIELDS = ("attributes", "rerank", "boxes")  # of a form

Files = Sequence[tuple[str, tuple[str, bytes]]]


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[T]):
    """One request. A request that changes data can be repeated if it has an idempotency `key`."""

    method: str
    path: str
    read: Callable[[bytes], T]
    json: Mapping[str, Any] | None = None
    lines: bytes | None = None  # JSON lines
    files: Files = ()
    form: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    accept: str = "application/json"
    key: str | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request for httpx."""
        headers = {"Accept": self.accept}
        content = None
        if self.json is not None:
            headers["Content-Type"] = "application/json"
            content = to_json(self.json, fallback=_plain)
        if self.lines is not None:
            headers["Content-Type"] = "application/x-ndjson"
            content = self.lines
        if self.key is not None:
            headers["Idempotency-Key"] = self.key
        return http.build_request(
            self.method,
            self.path,
            content=content,
            files=self.files or None,
            data=self.form or None,
            params=self.query or None,
            headers=headers,
        )


@dataclass(frozen=True, slots=True)
class PagedRequest(Generic[T]):
    """A list in pages. `read` returns the items of one page, and the cursor of the next page or None."""

    path: str
    query: Mapping[str, str]
    read: Callable[[bytes], tuple[Sequence[T], str | None]]

    def page(self, cursor: str | None) -> ApiRequest[tuple[Sequence[T], str | None]]:
        """The request for the page at a cursor; None is the first page."""
        query = {**self.query, "limit": "1000"} | ({"cursor": cursor} if cursor else {})
        return ApiRequest("GET", self.path, self.read, query=query)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `most` retries, for an overloaded service (429, 503) and for a short outage."""

    most: int

    def after_problem(self, attempt: int, answer: httpx.Response) -> float:
        """Seconds to wait after this response to attempt 0, 1, ... Raises ApiError if there is no retry."""
        if attempt >= self.most or answer.status_code not in _RETRIED:
            raise api_error(answer)
        return _retry_after(answer.headers.get("Retry-After", ""), _pause(attempt))

    def after_failure(self, attempt: int, call: ApiRequest[Any], error: httpx.TransportError) -> float:
        """Seconds to wait after a failed connection. Raises ClientError if the request must not be repeated.

        Without a key, a request that changes data must not be repeated after it was sent: the service may have done it.
        """
        repeatable = call.method == "GET" or call.key is not None or isinstance(error, httpx.ConnectError)
        if attempt >= min(self.most, _MOST_LOST) or not repeatable:
            raise no_answer(error) from error
        return _pause(attempt)


def _retry_after(value: str, otherwise: float) -> float:
    """Seconds to wait. The header has seconds or, from a proxy, a date (RFC 9110)."""
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        seconds = float(value)
    else:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return otherwise
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _pause(attempt: int) -> float:
    return min(_LONGEST_WAIT, 0.25 * 2.0**attempt)


def service_url(url: str) -> str:
    """The address of a service, for httpx. Raises ClientError if it is invalid."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ClientError(
            f"{url} is not the address of a service ({error}); give one like http://127.0.0.1:8000"
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        like = "http://127.0.0.1:8000" if "://" in url or not url else f"http://{url}"
        raise ClientError(f"{url or 'an empty text'} is not the address of a service; give one like {like}")
    return url


def authorization(api_key: str | None) -> dict[str, str]:
    """The header for a key; the default key is the environment variable PAN_API_KEY."""
    api_key = api_key or os.environ.get("PAN_API_KEY")
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def gallery_path(gallery: str, *more: str) -> str:
    """The path of a gallery or of a resource in it. Raises ClientError if the name is not valid for a gallery.

    Paths have only names that need no quoting: httpx normalises `..` and servers decode `%2F`, which would address
    another resource. Ids of persons and cameras go into the query or the body.
    """
    try:
        _NAME.validate_python(gallery)
    except ValidationError as error:
        raise ClientError(f"no gallery is named {gallery!r}: {error.errors()[0]['msg']}") from None
    return "/".join(["/v1/galleries", gallery, *more])


def entry_path(gallery: str, entry_id: int, *more: str) -> str:
    """The path of an entry or of a resource in it. Raises TypeError if the id is not an integer."""
    return gallery_path(gallery, "entries", str(index(entry_id)), *more)


def files(images: Sequence[bytes], name: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    """Images as files of a form."""
    return [(name, (str(index), image)) for index, image in enumerate(images)]


def form(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as fields of a form."""
    return {name: _field(name, value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    """An array or scalar of NumPy as lists and numbers of Python. Raises TypeError for what JSON cannot hold."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


def _field(name: str, value: Any) -> Any:
    if name in _JSON_FIELDS:
        return to_json(value, fallback=_plain).decode()
    return value.isoformat() if isinstance(value, datetime) else value
