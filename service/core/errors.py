"""The errors that the service raises on purpose. Each has a stable `code`; `service.api.problems` maps it to HTTP.

    ServiceError
    +-- InvalidRequest              a value in the request is invalid
    |   +-- UnusableImages          no image of the request is usable
    +-- UnsupportedBody             unsupported Content-Type
    +-- BodyTooLarge                too many bytes, images or results
    +-- Refused                     the caller is not allowed to make this call
    |   +-- Unauthenticated         no API key, or an invalid one
    |   +-- Forbidden               the API key lacks a scope
    |   +-- CrossSiteRequest        a web page of another site sent the request
    +-- NotFound                    no such gallery, entry, person or route
    |   +-- NoImage                 no picture of this entry is stored
    +-- Conflict                    the name is taken
    +-- ModelMismatch               the gallery was enrolled with another model
    +-- EntryDamaged                the stored vector of an entry is damaged
    +-- CropsMissing                entries have no stored picture to re-embed
    +-- NoExplainGraph              the bundle has no graph for explanations
    +-- NotCalibrated               the bundle has no threshold for a false-positive rate
    +-- Overloaded                  the queue is full
    |   +-- RateLimited             the API key exceeds its rate
    +-- DeadlineExceeded            the request took longer than its timeout
    +-- ClientDisconnected          the client closed the connection
    +-- EngineFailed                the engine raised, or returned values that are no embedding
    +-- NotReady                    the engine or the disk does not work
    +-- StorageFull                 the disk is full; nothing was written
    +-- StorageFailed               the database cannot be read or written; nothing was written
    +-- StartupError                the service cannot start with this configuration

`bundle.errors` has the errors of a single image; BoxOutOfBounds and NoEmbedding extend them here.
"""

from collections.abc import Sequence
from typing import Any

from bundle import ImageError, PanError

MAX_DETAIL = 500  # characters of one text in a problem document


class ServiceError(PanError):
    """Base class of the errors in this module."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all members: an error may be raised in another process than it is reported in."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ServiceError], arguments: tuple[Any, ...], members: dict[str, Any]) -> ServiceError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(members)
    return error


class InvalidRequest(ServiceError):
    """A value in the request is invalid. `problems` lists every invalid member."""

    code = "invalid-request"

    def __init__(self, message: str, problems: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class UnusableImages(InvalidRequest):
    """No image of the request is usable, or a required one is not."""

    code = "unusable-images"


class UnsupportedBody(ServiceError):
    """The route does not accept this Content-Type."""

    code = "unsupported-body"


class BodyTooLarge(ServiceError):
    """The request exceeds a limit on bytes, images or results."""

    code = "too-large"


class Refused(ServiceError):
    """The caller is not allowed to make this call. The audit stores `reason`, which quotes nothing from the request."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or self.code


class Unauthenticated(Refused):
    """The request has no API key, or an invalid one."""

    code = "unauthenticated"


class Forbidden(Refused):
    """The API key is valid but lacks `scope`."""

    code = "forbidden"

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message, f"no scope {scope}")
        self.scope = scope


class CrossSiteRequest(Refused):
    """A web page of another site sent the request. Without API keys, any page in a local browser could call us."""

    code = "foreign-page"


class NotFound(ServiceError):
    """The resource in the path does not exist."""

    code = "not-found"


class NoImage(NotFound):
    """The entry exists but has no picture: its gallery stored no crops, or it was enrolled as a vector."""

    code = "no-image"


class Conflict(ServiceError):
    """The name is taken."""

    code = "conflict"


class ModelMismatch(ServiceError):
    """The vectors of the gallery come from another model than the loaded one."""

    code = "model-mismatch"


class EntryDamaged(ServiceError):
    """The stored vector of the entry is damaged. It is excluded from searches, but can be listed and deleted."""

    code = "entry-damaged"


class CropsMissing(ServiceError):
    """Entries have no stored picture from which another model could compute vectors."""

    code = "crops-missing"


class NoExplainGraph(ServiceError):
    """The bundle was exported without the graph of part masks and compatibility maps."""

    code = "no-explain-graph"


class NotCalibrated(ServiceError):
    """The request needs a calibrated threshold, and the bundle has none."""

    code = "not-calibrated"


class Overloaded(ServiceError):
    """The queue is full. The client should retry after `retry_after` seconds."""

    code = "overloaded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Overloaded):
    """The API key exceeds its rate limit."""

    code = "rate-limited"


class DeadlineExceeded(ServiceError):
    """The request waited or ran longer than its timeout."""

    code = "deadline-exceeded"


class ClientDisconnected(ServiceError):
    """The client closed the connection before the response; its work was cancelled."""

    code = "client-gone"


class EngineFailed(ServiceError):
    """The engine failed on this batch. The next batch may succeed."""

    code = "engine-failed"


class NotReady(ServiceError):
    """The engine fails, or the database accepts no writes. A load balancer should use another instance."""

    code = "not-ready"


class StorageFull(ServiceError):
    """The disk is full. Nothing of the request was written."""

    code = "storage-full"


class StorageFailed(ServiceError):
    """The database cannot be read or written. Nothing of the request was written."""

    code = "storage-failed"


class StartupError(ServiceError):
    """The service cannot start with this configuration."""

    code = "startup"


class BoxOutOfBounds(ImageError):
    """A crop box extends beyond its frame."""

    code = "box-outside"


class NoEmbedding(ImageError):
    """The engine returned zeros, NaN or infinite values for this image, and valid vectors for others."""

    code = "no-embedding"


def shorten(text: str, limit: int = MAX_DETAIL) -> str:
    """Truncate a text to `limit` characters, because messages may quote arbitrarily long input."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def item_error(error: PanError) -> dict[str, str]:
    """The `error` member of one failed item in a response."""
    return {"code": error.code, "detail": shorten(str(error))}
