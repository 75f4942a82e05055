"""Builds the index of a gallery from the database."""

import logging
import sqlite3
from collections.abc import Callable

from service.index.gallery_index import GalleryIndex
from service.storage import entries as records
from service.storage.entry_integrity import Damage, examine_entries, first_few
from service.storage.galleries import GalleryRow

log = logging.getLogger(__name__)


def load_gallery(
    row: GalleryRow, clock: Callable[[], int], db: sqlite3.Connection, *, new_vectors: bool = False
) -> GalleryIndex:
    """The index of a gallery in the state that this connection sees. Damaged entries are set aside and logged.

    With `new_vectors`, the index has the vectors of a re-embedding that is not finished.
    """
    gallery = GalleryIndex(row.dim, row.retention, clock)
    segment = gallery.segment
    segment.exact.reserve(records.count_entries(db, row.id))
    damaged: list[Damage] = []
    for part in examine_entries(db, row.id, row.dim, new_vectors=new_vectors):
        valid = part.valid
        segment.exact.add(part.vectors)
        segment.metadata.append_columns(
            valid.ids, valid.persons, valid.cameras, valid.captured, valid.attributes, valid.since
        )
        damaged += part.damaged
    if damaged:
        segment.set_aside = frozenset(one.entry_id for one in damaged)
        log.error(
            "entries of a gallery are damaged and cannot be found; stop the service and run `pan-serve check`",
            extra={"gallery": row.name, "set_aside": len(damaged), "entries": first_few(damaged)},
        )
    return gallery
