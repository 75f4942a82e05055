"""API keys for tests, and the audit log."""

import sqlite3
from pathlib import Path

from service.auth.keys import create_key
from service.core.choices import Scope
from service.storage.connection import connect_for_command
from service.storage.data_dir import DATABASE, prepare_data_dir


def make_key(data: Path, name: str, *scopes: Scope, rate: float | None = None) -> str:
    """Create a key as `pan-serve key create` does, without starting a process."""
    prepare_data_dir(data)
    with connect_for_command(data / DATABASE, create=True) as db:
        return create_key(db, name, frozenset(scopes), rate, None)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def audit_of(data: Path) -> list[tuple[str, str, int, str]]:
    """The rows (who, action, count, detail) of the audit, in order."""
    with sqlite3.connect(data / DATABASE) as db:
        rows = db.execute("SELECT who, action, count, detail FROM audit ORDER BY id").fetchall()
    db.close()
    return rows
