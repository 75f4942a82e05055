"""The errors the service answers with. Each has a stable `code` and the HTTP status it becomes.

    ServiceError
    +-- InvalidRequest          422     the request says something that cannot be done
    |   +-- UnusableImages      422     none of the images can be used, or one that all depends on
    +-- UnsupportedBody         415     a body of a type this call does not read
    +-- BodyTooLarge            413     more bytes, images or results than accepted
    +-- Refused                         the caller may not make this call
    |   +-- Unauthenticated     401     no API key, or none that is valid
    |   +-- Forbidden           403     the key is not for this call
    |   +-- CrossSiteRequest    403     a web page of another site asks, and no key is required
    +-- NotFound                404     no such gallery, entry, person or route
    |   +-- NoImage             404     no picture of this entry is kept
    +-- Conflict                409     the name is taken
    |   +-- ModelMismatch       409     the gallery was enrolled with another model
    |   +-- EntryDamaged        409     the vector of an entry that a search asks by cannot be used
    |   +-- CropsMissing        409     entries of a gallery that is to go to another model keep no picture
    +-- NoExplainGraph          409     the bundle has no graph of part masks
    +-- NotCalibrated           409     the bundle states no threshold for a false-positive rate
    +-- Overloaded              429     the queue is full
    |   +-- RateLimited         429     more requests than this key may send
    +-- DeadlineExceeded        504     the answer would have come too late
    +-- ClientDisconnected      499     the client hung up; nobody reads the answer
    +-- EngineFailed            503     the engine raised, or gave numbers that are no embedding
    +-- NotReady                503     the engine or the disk does not do its work
    +-- StorageFull             507     the disk is full; nothing was written
    +-- StorageFailed           503     the database cannot be read or written; nothing was written
    +-- StartupError                    the service cannot start as it was asked to

Errors of one image come from `bundle.errors`, and BoxOutOfBounds and NoEmbedding are two more; `status_of` gives their
status.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from bundle import CorruptImage, ImageError, ImageTooLarge, ImageTooSmall, PanError, UnsupportedImage

LONGEST = 500  # characters of any text in a problem document


class ServiceError(PanError):
    """Base of what the service raises on purpose."""

    status: ClassVar[int] = 500

    def headers(self) -> dict[str, str]:
        """What the answer says of it besides its problem document."""
        return {}


class InvalidRequest(ServiceError):
    """The request is understood and wrong; `problems` names each wrong member."""

    code = "invalid-request"
    status = 422

    def __init__(self, message: str, problems: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class UnusableImages(InvalidRequest):
    """No image of the request can be used, or one without which there is no answer."""

    code = "unusable-images"


class UnsupportedBody(ServiceError):
    """The Content-Type is not one this call reads."""

    code = "unsupported-body"
    status = 415


class BodyTooLarge(ServiceError):
    """The request carries more than is accepted."""

    code = "too-large"
    status = 413


class Refused(ServiceError):
    """The caller may not make this call. `reason` is for the audit and holds nothing that the caller sent."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or self.code


class Unauthenticated(Refused):
    """The call needs an API key, and came without one or with one that is not valid."""

    code = "unauthenticated"
    status = 401

    def headers(self) -> dict[str, str]:
        """RFC 6750."""
        return {"WWW-Authenticate": 'Bearer realm="pan-reid"'}


class Forbidden(Refused):
    """The API key is valid and not for this call."""

    code = "forbidden"
    status = 403

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message, f"no scope {scope}")
        self.scope = scope

    def headers(self) -> dict[str, str]:
        """RFC 6750."""
        return {"WWW-Authenticate": f'Bearer realm="pan-reid", error="insufficient_scope", scope="{self.scope}"'}


class CrossSiteRequest(Refused):
    """Without keys, a browser on this machine would be a way in for any page it shows."""

    code = "foreign-page"
    status = 403


class NotFound(ServiceError):
    """What the path names does not exist."""

    code = "not-found"
    status = 404


class NoImage(NotFound):
    """The entry is there; its gallery kept no crops when it was enrolled, or it was enrolled by its vector."""

    code = "no-image"


class Conflict(ServiceError):
    """The name is already taken."""

    code = "conflict"
    status = 409


class ModelMismatch(ServiceError):
    """The gallery's vectors come from another model than the one that is loaded."""

    code = "model-mismatch"
    status = 409


class EntryDamaged(ServiceError):
    """An entry whose vector was damaged in the database: it is listed and can be deleted, and answers no search."""

    code = "entry-damaged"
    status = 409


class CropsMissing(ServiceError):
    """Entries keep no picture from which another model could embed them."""

    code = "crops-missing"
    status = 409


class NoExplainGraph(ServiceError):
    """The bundle was exported without the graph of part masks and compatibility maps."""

    code = "no-explain-graph"
    status = 409


class NotCalibrated(ServiceError):
    """The bundle has no calibration, and the request needs one."""

    code = "not-calibrated"
    status = 409


class Overloaded(ServiceError):
    """The queue is full; `retry_after` seconds from now there should be room."""

    code = "overloaded"
    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """When to come back, in seconds."""
        return {"Retry-After": str(self.retry_after)}


class RateLimited(Overloaded):
    """The API key has used up what it may send for now."""

    code = "rate-limited"


class DeadlineExceeded(ServiceError):
    """The request waited or ran longer than allowed."""

    code = "deadline-exceeded"
    status = 504


class ClientDisconnected(ServiceError):
    """The client closed the connection before the answer was ready; its work was dropped."""

    code = "client-gone"
    status = 499


class EngineFailed(ServiceError):
    """The engine could not embed this batch; the next one may succeed."""

    code = "engine-failed"
    status = 503


class NotReady(ServiceError):
    """The engine does not embed or the database takes no writes; send work elsewhere meanwhile."""

    code = "not-ready"
    status = 503


class StorageFull(ServiceError):
    """No room on the disk. Nothing of the request was written."""

    code = "storage-full"
    status = 507


class StorageFailed(ServiceError):
    """The database cannot be read or written. Nothing of the request was written."""

    code = "storage-failed"
    status = 503


class StartupError(ServiceError):
    """The service cannot start as it was asked to."""

    code = "startup"


class BoxOutOfBounds(ImageError):
    """A box reaches out of the frame that it is to be cut from."""

    code = "box-outside"


class NoEmbedding(ImageError):
    """The engine gave zeros, NaN or infinite numbers for this picture, and embeds others."""

    code = "no-embedding"


_IMAGE_STATUS: dict[type[PanError], int] = {
    UnsupportedImage: 415,
    CorruptImage: 422,
    ImageTooLarge: 413,
    ImageTooSmall: 422,
}


def status_of(error: PanError) -> int:
    """The HTTP status an error becomes."""
    if isinstance(error, ServiceError):
        return error.status
    return _IMAGE_STATUS.get(type(error), 422)


def shorten(text: str, most: int = LONGEST) -> str:
    """A text of at most `most` characters: what a client sent may be quoted, but not sent back whole."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def item_error(error: PanError) -> dict[str, str]:
    """What the result of one item says of its failure."""
    return {"code": error.code, "detail": shorten(str(error))}
