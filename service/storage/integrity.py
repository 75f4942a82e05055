"""Examines a whole database. Startup, `pan-serve check`, backup and restore share this examination."""

import sqlite3
from dataclasses import dataclass, field

from service.storage.entries import count_entries
from service.storage.entry_integrity import Damage, ExaminedEntries, examine_entries, most_common_dim
from service.storage.galleries import IMPORT_PREFIX
from service.storage.gallery_integrity import GalleryDamage, examine_gallery, gallery_rows


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """The findings in one gallery. With `damage`, the whole gallery is set aside: it is not served."""

    id: int
    name: str
    entries: int
    fingerprint: str
    damaged: list[Damage] = field(default_factory=list)
    damage: GalleryDamage | None = None


def examine_galleries(db: sqlite3.Connection) -> list[GalleryReport]:
    """A report on each gallery, sorted by name: what a service would set aside at startup."""
    reports = []
    for row in gallery_rows(db):
        id_, name, fingerprint = row["id"], row["name"], row["fingerprint"]
        if name.startswith(IMPORT_PREFIX):
            continue  # an interrupted import, which the next startup deletes
        dim = most_common_dim(db, id_, row["dim"])
        damage = examine_gallery(row, dim)
        if damage is not None and damage.repair is None:  # then its vectors may have no valid dimension
            count = count_entries(db, id_)
            reports.append(GalleryReport(id_, name, count, fingerprint, damage=damage))
            continue
        summaries = list(map(_summarize, examine_entries(db, id_, dim)))
        count = sum(entries for entries, _ in summaries)
        damaged = [one for _, chunk in summaries for one in chunk]
        reports.append(GalleryReport(id_, name, count, fingerprint, damaged, damage))
    return reports


def integrity_errors(db: sqlite3.Connection) -> list[str]:
    """The first 20 errors that SQLite finds in the file. Reads every page. No service can use such a database."""
    found = [row[0] for row in db.execute("PRAGMA integrity_check(20)")]
    return [] if found == ["ok"] else found


def _summarize(chunk: ExaminedEntries) -> tuple[int, list[Damage]]:
    """The number of entries and the damaged ones, without the vectors."""
    return len(chunk.valid.ids) + len(chunk.damaged), chunk.damaged
