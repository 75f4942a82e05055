"""A gallery in memory, made of what the database holds."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service import records
from service.errors import StartupError
from service.gallery import Gallery
from service.gallery_records import GalleryRow
from service.records import NEW_VECTOR, VECTOR, WITH_NEW_VECTORS, WITH_VECTORS

_CHUNK = 1024
_UNIT = 1e-2  # of the squared length: engines in float16 and int8 give what they give, and damage is far from it


def rebuild(row: GalleryRow, clock: Callable[[], int], db: sqlite3.Connection, *, new_vectors: bool = False) -> Gallery:
    """The entries of a gallery as this connection sees them; with `new_vectors`, those that were embedded again for a
    model that the gallery has not gone over to yet. Raises StartupError for one that is damaged.
    """
    gallery = Gallery(row.dim, row.retention, clock)
    contents = gallery.contents
    contents.vectors.reserve(records.count_entries(db, row.id))
    for ids, persons, cameras, captured, attributes, since, blobs in _entries(db, row.id, new_vectors):
        sizes = np.fromiter(map(len, blobs), np.int64)
        _refuse_damaged(row, ids, sizes != 4 * row.dim, f"not {row.dim} numbers")
        vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), row.dim)
        lengths = np.einsum("nd,nd->n", vectors, vectors)
        _refuse_damaged(row, ids, ~(np.abs(lengths - 1.0) < _UNIT), "something else than a unit vector")
        contents.vectors.add(vectors)
        contents.columns.append_columns(ids, persons, cameras, captured, attributes, since)
    return gallery


def _refuse_damaged(row: GalleryRow, ids: Sequence[int], damaged: npt.NDArray[np.bool_], what: str) -> None:
    if damaged.any():
        raise StartupError(
            f"entry {ids[int(damaged.argmax())]} of gallery {row.name} holds {what}: the database is damaged; "
            "restore it from a backup"
        )


class _Columns(NamedTuple):
    """Many entries, a value each in every column. A million objects would take longer to make than to read."""

    ids: tuple[int, ...]
    persons: tuple[str | None, ...]
    cameras: tuple[str | None, ...]
    captured: tuple[int | None, ...]
    attributes: tuple[str, ...]
    since: tuple[int, ...]
    vectors: tuple[bytes, ...]


def _entries(db: sqlite3.Connection, gallery_id: int, new_vectors: bool) -> Iterator[_Columns]:
    """The entries of a whole gallery with the bytes of their vectors, in the order of enrolment, in chunks."""
    vector, entries = (NEW_VECTOR, WITH_NEW_VECTORS) if new_vectors else (VECTOR, WITH_VECTORS)
    cursor = db.cursor()
    cursor.row_factory = None
    cursor.execute(
        f"SELECT id, person_id, camera_id, captured_at, attributes, since, {vector} FROM {entries}"
        " WHERE gallery_id = ? ORDER BY id",
        (gallery_id,),
    )
    while rows := cursor.fetchmany(_CHUNK):
        yield _Columns._make(zip(*rows, strict=True))
