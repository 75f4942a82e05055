"""A function for each operation of the API, which describes its request. The methods of both clients use them."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from pan_reid.request import ApiRequest, PagedRequest, entry_path, files, form, gallery_path
from pan_reid.schemas import (
    AuditPage,
    AuditRecord,
    Comparison,
    Enrolled,
    Entry,
    EntryInfo,
    EntryPage,
    ErasureReceipt,
    Explanations,
    Gallery,
    GalleryList,
    IndexKind,
    Model,
    Person,
    PersonPage,
    ReEmbedding,
    SearchAnswer,
)
from pan_reid.vectors import Vectors, decode_npy, encode_rows

M = TypeVar("M", bound=BaseModel)

_NO_METADATA = EntryInfo()


@dataclass(frozen=True, slots=True)
class Crop:
    """The encoded image of one person, and its metadata."""

    image: bytes
    info: EntryInfo = _NO_METADATA


@dataclass(frozen=True, slots=True)
class VectorCrop:
    """The (dim,) vector of a crop, made by the loaded model, and its metadata."""

    vector: Vectors
    info: EntryInfo = _NO_METADATA


def model() -> ApiRequest[Model]:
    """The loaded model."""
    return ApiRequest("GET", "/v1/model", _as(Model))


def embed(images: Sequence[bytes], boxes: Sequence[Sequence[float]] | None = None) -> ApiRequest[Vectors]:
    """(images, dim) unit vectors; or (boxes, dim) of the boxes (x, y, width, height in pixels) in one frame.

    Raises ApiError if any image or box cannot be used.
    """
    binary = "application/octet-stream"
    return ApiRequest("POST", "/v1/embeddings", decode_npy, files=files(images), form=_boxes(boxes), accept=binary)


def explain(images: Sequence[bytes], boxes: Sequence[Sequence[float]] | None = None) -> ApiRequest[Explanations]:
    """Part masks and compatibility maps of a few images, or of boxes in one frame."""
    return ApiRequest("POST", "/v1/explain", _as(Explanations), files=files(images), form=_boxes(boxes))


def compare(a: Sequence[bytes], b: Sequence[bytes], **options: Any) -> ApiRequest[Comparison]:
    """Compare two sets of images, each of one person. Options: members of `pan_reid.schemas.DecisionOptions`."""
    both = files(a, "a") + files(b, "b")
    return ApiRequest("POST", "/v1/compare", _as(Comparison), files=both, form=form(options))


def galleries() -> ApiRequest[list[Gallery]]:
    """All galleries, sorted by name."""
    return ApiRequest("GET", "/v1/galleries", lambda data: GalleryList.model_validate_json(data).galleries)


def gallery(name: str) -> ApiRequest[Gallery]:
    """A gallery. Raises ApiError with status 404 if it does not exist."""
    return ApiRequest("GET", gallery_path(name), _as(Gallery))


def create_gallery(
    name: str,
    purpose: str = "",
    *,
    index: IndexKind = "auto",
    retention_days: float | None = None,
    keep_crops: bool = False,
) -> ApiRequest[Gallery]:
    """Create an empty gallery. Raises ApiError with status 409 if the name exists."""
    kept = {"retention_days": retention_days, "keep_crops": keep_crops}
    wanted = {"name": name, "purpose": purpose, "index": index, **kept}
    return ApiRequest("POST", "/v1/galleries", _as(Gallery), json=wanted)


def update_gallery(name: str, **changes: Any) -> ApiRequest[Gallery]:
    """Change the given members of `pan_reid.schemas.GalleryUpdate`."""
    return ApiRequest("PATCH", gallery_path(name), _as(Gallery), json=changes)


def delete_gallery(name: str) -> ApiRequest[ErasureReceipt]:
    """Erase a gallery with all its entries."""
    return ApiRequest("DELETE", gallery_path(name), _as(ErasureReceipt))


def purge(gallery: str) -> ApiRequest[ErasureReceipt]:
    """Erase the expired entries now. Returns when they are erased."""
    return ApiRequest("POST", gallery_path(gallery, "purge"), _as(ErasureReceipt))


def re_embed(gallery: str, *, drop_without_crop: bool = False) -> ApiRequest[ReEmbedding]:
    """Start to re-embed the stored images of a gallery with the loaded model, in the background.

    Entries without a stored image: ApiError with status 409, or erased at the end with `drop_without_crop`.
    """
    query = {"drop_without_crop": "true"} if drop_without_crop else {}
    return ApiRequest("POST", gallery_path(gallery, "re-embed"), _as(ReEmbedding), query=query)


def re_embedding(gallery: str) -> ApiRequest[ReEmbedding]:
    """Progress of the re-embedding of a gallery."""
    return ApiRequest("GET", gallery_path(gallery, "re-embed"), _as(ReEmbedding))


def enrol(gallery: str, crops: Sequence[Crop], *, key: str | None = None) -> ApiRequest[Enrolled]:
    """Enrol crops. The response has a result for each crop. A retry does not enrol a crop twice.

    `key` is the idempotency key: for seven days, the service repeats its first response to a request with this
    key, and does not enrol again. The default is a new key for each call.
    """
    metadata = to_json([crop.info.model_dump(exclude_unset=True) for crop in crops])
    return ApiRequest(
        "POST",
        gallery_path(gallery, "entries"),
        _as(Enrolled),
        files=files([crop.image for crop in crops]),
        form={"metadata": metadata.decode()},
        key=key or uuid.uuid4().hex,
    )


def entries(gallery: str, **filters: str) -> PagedRequest[Entry]:
    """All entries in the order of enrolment. Filters: person_id, camera_id."""

    def read(data: bytes) -> tuple[Sequence[Entry], str | None]:
        page = EntryPage.model_validate_json(data)
        return page.entries, page.next_cursor

    return PagedRequest(gallery_path(gallery, "entries"), filters, read)


def entry(gallery: str, entry_id: int) -> ApiRequest[Entry]:
    """An entry. Raises ApiError with status 404 if it does not exist."""
    return ApiRequest("GET", entry_path(gallery, entry_id), _as(Entry))


def update_entry(gallery: str, entry_id: int, **changes: Any) -> ApiRequest[Entry]:
    """Change the given members of `pan_reid.schemas.EntryUpdate`; None clears a member."""
    return ApiRequest("PATCH", entry_path(gallery, entry_id), _as(Entry), json=changes)


def delete_entry(gallery: str, entry_id: int) -> ApiRequest[None]:
    """Delete an entry and its vector."""
    return ApiRequest("DELETE", entry_path(gallery, entry_id), lambda _: None)


def image(gallery: str, entry_id: int) -> ApiRequest[bytes]:
    """The stored image of an entry, JPEG. Raises ApiError with status 404 if no image is stored."""
    return ApiRequest("GET", entry_path(gallery, entry_id, "image"), bytes, accept="image/jpeg")


def persons(gallery: str) -> PagedRequest[Person]:
    """All persons, sorted by id."""

    def read(data: bytes) -> tuple[Sequence[Person], str | None]:
        page = PersonPage.model_validate_json(data)
        return page.persons, page.next_cursor

    return PagedRequest(gallery_path(gallery, "persons"), {}, read)


def erase_person(gallery: str, person_id: str) -> ApiRequest[ErasureReceipt]:
    """Erase all entries of a person in this gallery."""
    return ApiRequest("DELETE", gallery_path(gallery, "persons"), _as(ErasureReceipt), query={"person_id": person_id})


def audit(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    caller: str | None = None,
    gallery: str | None = None,
    action: str | None = None,
) -> PagedRequest[AuditRecord]:
    """The records of the audit log that pass all filters, newest first. Needs scope admin.

    Times have a time zone. `caller` is the name of a key, or the address of a caller without one.
    """
    times = {name: at.isoformat() for name, at in (("since", since), ("until", until)) if at is not None}
    names = {"caller": caller, "gallery": gallery, "action": action}

    def read(data: bytes) -> tuple[Sequence[AuditRecord], str | None]:
        page = AuditPage.model_validate_json(data)
        return page.records, page.next_cursor

    return PagedRequest("/v1/audit", times | {name: one for name, one in names.items() if one is not None}, read)


def search(gallery: str, *images: bytes, **options: Any) -> ApiRequest[SearchAnswer]:
    """Search by one or several images of one person. Options: the members of `pan_reid.schemas.SearchOptions`."""
    return ApiRequest(
        "POST", gallery_path(gallery, "search"), _as(SearchAnswer), files=files(images), form=form(options)
    )


def search_vector(gallery: str, vector: Vectors, **options: Any) -> ApiRequest[SearchAnswer]:
    """Search by a (dim,) vector of the gallery's model, or by (n, dim) vectors of one person."""
    wanted = {"vectors": encode_rows(vector), **options}
    return ApiRequest("POST", gallery_path(gallery, "search"), _as(SearchAnswer), json=wanted)


def search_entry(gallery: str, *entry_ids: int, **options: Any) -> ApiRequest[SearchAnswer]:
    """Search by one or several entries of one person. The hits exclude these entries."""
    wanted = {"entry_ids": entry_ids, **options}
    return ApiRequest("POST", gallery_path(gallery, "search"), _as(SearchAnswer), json=wanted)


def _as(answer: type[M]) -> Callable[[bytes], M]:
    return answer.model_validate_json


def _boxes(boxes: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    return form({} if boxes is None else {"boxes": boxes})
