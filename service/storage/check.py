"""Examines the database of a stopped service in more detail than a startup, and repairs it."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from service.core.errors import StartupError
from service.storage.audit import insert_audit
from service.storage.backup import RECOVERY_HINT
from service.storage.connection import connect_for_command, open_read_only, read_transaction
from service.storage.data_dir import DATABASE, lock_data_dir
from service.storage.entries import delete_entry
from service.storage.entry_integrity import Damage
from service.storage.galleries import delete_gallery, delete_snapshot
from service.storage.gallery_integrity import GalleryDamage
from service.storage.integrity import GalleryReport, examine_galleries, integrity_errors
from service.storage.migrations import SCHEMA_VERSION

_WHO = "(pan-serve check)"  # in the audit; no API key can have this name


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings of a check. `broken` cannot be repaired by this command, everything else can."""

    broken: list[str] = field(default_factory=list)
    galleries: list[GalleryReport] = field(default_factory=list)
    orphans: list[tuple[str, int]] = field(default_factory=list)  # table and rowid of rows with a missing parent
    unreadable_crops: list[int] = field(default_factory=list)  # ids of entries

    @property
    def damaged(self) -> int:
        """The number of damaged entries."""
        return sum(len(one.damaged) for one in self.galleries)

    @property
    def ok(self) -> bool:
        """Whether the check found nothing."""
        galleries = any(one.damage for one in self.galleries)
        return not (self.broken or galleries or self.damaged or self.orphans or self.unreadable_crops)


def check(data: Path) -> CheckReport:
    """Examine the database of a data folder without changing it.

    Raises StartupError if there is none, or while a service uses it.
    """
    path = _existing_database(data)
    with lock_data_dir(data):
        return _examine(path)


def repair(data: Path) -> tuple[CheckReport, CheckReport]:
    """Repair the findings of `check` in one transaction, record that in the audit, and check again.

    Returns the reports before and after. It repairs a gallery's name, dimension, kind of index, time and retention, and
    deletes a gallery without a valid fingerprint. It normalises vectors, clamps times to the years 1 to 9999, replaces
    invalid UTF-8, and clears attributes that cannot be parsed. It deletes entries whose vector cannot be normalised,
    crops that cannot be decoded, and orphaned rows. It changes nothing in a broken file.

    Raises StartupError as `check` does, StorageFull and StorageFailed.
    """
    path = _existing_database(data)
    with lock_data_dir(data):
        found = _examine(path)
        if found.ok or found.broken:
            return found, found
        with connect_for_command(path) as db:
            db.execute("BEGIN IMMEDIATE")
            _repair(db, found)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that no deleted row remains in the log
        return found, _examine(path)


def _existing_database(data: Path) -> Path:
    if not (data / DATABASE).is_file():
        raise StartupError(f"there is no {DATABASE} in {data}; set --data to the data folder of the service")
    return data / DATABASE


def _examine(path: Path) -> CheckReport:
    try:
        with closing(open_read_only(path)) as db, read_transaction(db):
            return _read(db)
    except sqlite3.DatabaseError as error:
        return CheckReport(broken=[f"{error}; {RECOVERY_HINT}"])


def _read(db: sqlite3.Connection) -> CheckReport:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= version <= SCHEMA_VERSION:
        problem = f"it has schema version {version}, but this release reads versions 1 to {SCHEMA_VERSION}"
        return CheckReport(broken=[problem])
    if errors := integrity_errors(db):
        return CheckReport(broken=[*errors, RECOVERY_HINT])
    orphans = [(row[0], row[1]) for row in db.execute("PRAGMA foreign_key_check")]
    return CheckReport([], examine_galleries(db), orphans, list(_unreadable_crops(db)))


def _unreadable_crops(db: sqlite3.Connection) -> Iterator[int]:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'crops'").fetchone() is None:
        return  # a database of an earlier release
    for entry_id, image in db.execute("SELECT entry_id, image FROM crops JOIN entries ON entries.id = entry_id"):
        try:
            with Image.open(BytesIO(image), formats=["JPEG"]):
                pass
        except (OSError, SyntaxError, ValueError):
            yield entry_id


def _repair(db: sqlite3.Connection, found: CheckReport) -> None:
    for gallery in found.galleries:
        if gallery.damage is not None:
            _repair_gallery(db, gallery, gallery.damage)
        repairable = [one for one in gallery.damaged if one.repair is not None]
        lost = [one for one in gallery.damaged if one.repair is None]
        for one in repairable:
            _repair_entry(db, one)
        for one in lost:
            delete_entry(db, gallery.id, one.entry_id)
        if gallery.damaged:
            delete_snapshot(db, gallery.id)  # the index in it was built from the damaged vectors
        for action, entries in (("repair", repairable), ("repair-delete", lost)):
            if entries:
                insert_audit(db, _WHO, action, gallery.name, len(entries))
    db.executemany("DELETE FROM crops WHERE entry_id = ?", [(id_,) for id_ in found.unreadable_crops])
    if found.unreadable_crops:
        insert_audit(db, _WHO, "repair-delete-crops", "", len(found.unreadable_crops))
    for table, rowid in found.orphans:
        db.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (rowid,))
    for table, count in Counter(table for table, _ in found.orphans).items():
        insert_audit(db, _WHO, f"repair-delete-{table}", "", count)


def _repair_gallery(db: sqlite3.Connection, gallery: GalleryReport, damage: GalleryDamage) -> None:
    if damage.repair is None:
        count = delete_gallery(db, gallery.id)
        insert_audit(db, _WHO, "repair-delete-gallery", gallery.name, count)
        return
    for column, value in damage.repair.items():
        db.execute(f"UPDATE galleries SET {column} = ? WHERE id = ?", (value, gallery.id))
    insert_audit(db, _WHO, "repair-gallery", gallery.name, 0)


def _repair_entry(db: sqlite3.Connection, damage: Damage) -> None:
    for column, value in (damage.repair or {}).items():
        if column == "vector":  # the current vector is in one of two tables; the other one holds an outdated vector
            db.execute("UPDATE vectors SET vector = ? WHERE entry_id = ?", (value, damage.entry_id))
            db.execute(
                "UPDATE reembedded SET vector = ? WHERE entry_id = ? AND EXISTS (SELECT 1 FROM reembeddings"
                " JOIN entries USING (gallery_id) WHERE entries.id = entry_id AND finished_at IS NOT NULL)",
                (value, damage.entry_id),
            )
        else:
            db.execute(f"UPDATE entries SET {column} = ? WHERE id = ?", (value, damage.entry_id))
