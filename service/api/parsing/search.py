"""What a search asks: vectors out of images, vectors or entries, and the filter out of the options."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pan_reid.schemas import Fuse, SearchOptions
from service.api.mapping import microseconds
from service.api.parsing.body import Body
from service.api.parsing.images import ImageInput, mean_direction, parse_images, require_all, require_count, unit_vector
from service.container import Container
from service.core.errors import InvalidRequest, ModelMismatch
from service.core.models import EntryRow
from service.core.types import Vectors
from service.index.attributes import attribute_key
from service.index.metadata import Filter
from service.storage.galleries import GalleryRow

_QUERIES = ("images", "vector", "vectors", "entry_id", "entry_ids")
_PLURAL = {"vector": "vectors", "entry_id": "entry_ids"}


@dataclass(frozen=True, slots=True)
class Query:
    """(n, D) unit vectors of one person, and the entries they come from, if they do."""

    vectors: Vectors
    entries: tuple[EntryRow, ...] = ()

    def fused(self, how: Fuse) -> Vectors:
        """What to search by: (1, D) for the mean, all of them for the best match."""
        return self.vectors if how == "best" else mean_direction(list(self.vectors))[None]


def parse_query(body: Body, most: int) -> tuple[str, Any]:
    """The one thing to search by, out of a body: `images`, `vectors` or `entry_ids`, and the pictures or the list.

    Raises InvalidRequest, or BodyTooLarge for a list of more than `most`.
    """
    given = [name for name in _QUERIES if name in body.members]
    if not body.is_json:
        if given:
            raise InvalidRequest(f"{', '.join(given)} is a member of JSON bodies; send images as files")
        return "images", parse_images(body, most)
    if len(given) != 1:
        raise InvalidRequest(f"a search has exactly one of {', '.join(f'`{name}`' for name in _QUERIES)}")
    (name,) = given
    if name == "images":
        return name, parse_images(body, most)
    value = body.members.pop(name)
    if name in _PLURAL:
        return _PLURAL[name], [value]
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"`{name}` is a list with at least one item")
    require_count(value, name, most)
    return name, value


def require_model(service: Container, row: GalleryRow, kind: str, options: SearchOptions) -> None:
    """Raises ModelMismatch where the query, or a rate that was asked for, is not of the gallery's model."""
    of_loaded = kind == "images" or (kind == "vectors" and options.fingerprint is None)
    if of_loaded or options.false_positive_rate is not None:
        service.galleries.require_current(row)
    if options.fingerprint is not None and options.fingerprint != row.fingerprint:
        raise ModelMismatch(
            f"the query is of model {options.fingerprint[:12]} and gallery {row.name} of {row.fingerprint[:12]}: "
            "vectors of two models cannot be compared"
        )


async def embed_query(service: Container, row: GalleryRow, kind: str, value: Any) -> Query:
    """Raises InvalidRequest, NotFound for an entry, Conflict, or as embedding does."""
    if isinstance(value, ImageInput):
        outcomes = await service.embedder.embed(value.images, value.boxes)
        return Query(np.stack(require_all(outcomes, value.names)))
    if kind == "vectors":
        return Query(np.stack([unit_vector(one, row.dim) for one in value]))
    if not all(type(one) is int and 0 < one < 2**63 for one in value):
        raise InvalidRequest("an `entry_id` is a positive integer")
    entries, vectors = zip(*await service.entries.with_vectors(row, value), strict=True)
    return Query(np.stack(vectors), entries)


def as_filter(query: Query, options: SearchOptions) -> Filter:
    """Raises InvalidRequest where an exclusion needs what is not known of the query."""
    pairs = [
        (options.person_id or entry.person_id, options.camera_id or entry.camera_id) for entry in query.entries
    ] or [(options.person_id, options.camera_id)]
    own_cameras = frozenset(camera for _, camera in pairs if camera is not None)
    own_pairs = frozenset((person, camera) for person, camera in pairs if person is not None and camera is not None)
    if options.exclude_same_camera and not own_cameras:
        raise InvalidRequest("exclude_same_camera needs the query's camera: give camera_id")
    if options.exclude_same_person_same_camera and not own_pairs:
        raise InvalidRequest("exclude_same_person_same_camera needs the query's person_id and camera_id")
    exclude_cameras = frozenset(options.exclude_cameras)
    return Filter(
        cameras=_set_or_none(options.cameras),
        exclude_cameras=exclude_cameras | own_cameras if options.exclude_same_camera else exclude_cameras,
        persons=_set_or_none(options.persons),
        exclude_persons=frozenset(options.exclude_persons),
        captured_from=microseconds(options.captured_from),
        captured_until=microseconds(options.captured_until),
        attributes=frozenset(
            frozenset(attribute_key(name, one) for one in (value if isinstance(value, list) else [value]))
            for name, value in options.attributes.items()
        ),
        exclude_persons_at_cameras=own_pairs if options.exclude_same_person_same_camera else frozenset(),
        exclude_entries=frozenset(entry.id for entry in query.entries),
    )


def _set_or_none(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
