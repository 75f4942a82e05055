"""The database of a stopped service examined, as a start does and further, and repaired where that is possible."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from service.core.errors import StartupError
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage.backup import TAKE_ANOTHER, read_only
from service.storage.data_dir import DATABASE, lock_data_dir
from service.storage.database import connect_for_command, read_transaction
from service.storage.gallery_integrity import GalleryDamage
from service.storage.integrity import Damage, GalleryReport, broken_pages, examine_galleries
from service.storage.migrations import SCHEMA_VERSION

_WHO = "(pan-serve check)"  # in the audit; no key has such a name


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `broken` cannot be repaired here; all else can."""

    broken: list[str] = field(default_factory=list)
    galleries: list[GalleryReport] = field(default_factory=list)
    orphans: list[tuple[str, int]] = field(default_factory=list)  # table and rowid of what belongs to nothing
    pictures: list[int] = field(default_factory=list)  # entries whose kept picture cannot be read

    @property
    def damaged(self) -> int:
        """How many entries are set aside."""
        return sum(len(one.damaged) for one in self.galleries)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        galleries = any(one.damage for one in self.galleries)
        return not (self.broken or galleries or self.damaged or self.orphans or self.pictures)


def check(data: Path) -> Report:
    """Examine the database of a data folder, and change nothing. Raises StartupError, also while a service uses it."""
    path = _database(data)
    with lock_data_dir(data):
        return _examined(path)


def repair(data: Path) -> tuple[Report, Report]:
    """Mend what `check` finds in one transaction, and say so in the audit; what was found, and what is left.

    Of a gallery are mended its name, dimension, kind of index, time and retention; one without a usable fingerprint is
    deleted. A vector of another length is normalised and a time brought within the years 1 to 9999; bytes that are
    not UTF-8 are replaced, and attributes that cannot be read are emptied. Deleted are entries without a vector that
    has a direction, pictures that cannot be read, and rows that belong to nothing. Nothing is changed in a file that is
    broken. Raises as `check`, and a storage error.
    """
    path = _database(data)
    with lock_data_dir(data):
        found = _examined(path)
        if found.ok or found.broken:
            return found, found
        with connect_for_command(path) as db:
            db.execute("BEGIN IMMEDIATE")
            _mend(db, found)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # nothing of what was deleted is left in the log
        return found, _examined(path)


def _database(data: Path) -> Path:
    if not (data / DATABASE).is_file():
        raise StartupError(f"{data} holds no {DATABASE}; give the --data of the service")
    return data / DATABASE


def _examined(path: Path) -> Report:
    try:
        with closing(read_only(path)) as db, read_transaction(db):
            return _read(db)
    except sqlite3.DatabaseError as error:
        return Report(broken=[f"{error}; {TAKE_ANOTHER}"])


def _read(db: sqlite3.Connection) -> Report:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= version <= SCHEMA_VERSION:
        return Report(broken=[f"it has schema version {version} and this release reads 1 to {SCHEMA_VERSION}"])
    if pages := broken_pages(db):
        return Report(broken=[*pages, TAKE_ANOTHER])
    orphans = [(row[0], row[1]) for row in db.execute("PRAGMA foreign_key_check")]
    return Report([], examine_galleries(db), orphans, list(_unreadable(db)))


def _unreadable(db: sqlite3.Connection) -> Iterator[int]:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'crops'").fetchone() is None:
        return  # of a release that kept none
    for entry_id, image in db.execute("SELECT entry_id, image FROM crops JOIN entries ON entries.id = entry_id"):
        try:
            with Image.open(BytesIO(image), formats=["JPEG"]):
                pass
        except (OSError, SyntaxError, ValueError):
            yield entry_id


def _mend(db: sqlite3.Connection, found: Report) -> None:
    for gallery in found.galleries:
        if gallery.damage is not None:
            _mend_gallery(db, gallery, gallery.damage)
        mended = [one for one in gallery.damaged if one.repair is not None]
        lost = [one for one in gallery.damaged if one.repair is None]
        for one in mended:
            _mend_entry(db, one)
        for one in lost:
            records.delete_entry(db, gallery.id, one.entry_id)
        if gallery.damaged:
            gallery_records.delete_snapshot(db, gallery.id)  # its index knows the vectors as they were
        for action, entries in (("repair", mended), ("repair-delete", lost)):
            if entries:
                records.insert_audit(db, _WHO, action, gallery.name, len(entries))
    db.executemany("DELETE FROM crops WHERE entry_id = ?", [(id_,) for id_ in found.pictures])
    if found.pictures:
        records.insert_audit(db, _WHO, "repair-delete-crops", "", len(found.pictures))
    for table, rowid in found.orphans:
        db.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (rowid,))
    for table, count in Counter(table for table, _ in found.orphans).items():
        records.insert_audit(db, _WHO, f"repair-delete-{table}", "", count)


def _mend_gallery(db: sqlite3.Connection, gallery: GalleryReport, damage: GalleryDamage) -> None:
    if damage.repair is None:
        count = gallery_records.delete_gallery(db, gallery.id)
        records.insert_audit(db, _WHO, "repair-delete-gallery", gallery.name, count)
        return
    for column, value in damage.repair.items():
        db.execute(f"UPDATE galleries SET {column} = ? WHERE id = ?", (value, gallery.id))
    records.insert_audit(db, _WHO, "repair-gallery", gallery.name, 0)


def _mend_entry(db: sqlite3.Connection, damage: Damage) -> None:
    for column, value in (damage.repair or {}).items():
        if column == "vector":  # it counts in one of the two places, and the other is to be replaced by it
            db.execute("UPDATE vectors SET vector = ? WHERE entry_id = ?", (value, damage.entry_id))
            db.execute(
                "UPDATE reembedded SET vector = ? WHERE entry_id = ? AND EXISTS (SELECT 1 FROM reembeddings"
                " JOIN entries USING (gallery_id) WHERE entries.id = entry_id AND finished_at IS NOT NULL)",
                (value, damage.entry_id),
            )
        else:
            db.execute(f"UPDATE entries SET {column} = ? WHERE id = ?", (value, damage.entry_id))
