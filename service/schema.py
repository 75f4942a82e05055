"""The tables of the gallery database. Times are microseconds since 1970, UTC."""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE galleries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    purpose TEXT NOT NULL,
    index_kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- AUTOINCREMENT: an entry's id is never given to another entry, and ids ascend in the order of enrolment.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gallery_id INTEGER NOT NULL REFERENCES galleries ON DELETE CASCADE,
    person_id TEXT,
    camera_id TEXT,
    captured_at INTEGER,
    attributes TEXT NOT NULL,  -- a JSON object of scalars
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX entries_by_gallery ON entries (gallery_id);
CREATE INDEX entries_by_person ON entries (gallery_id, person_id, camera_id);

-- Apart from entries, so that listing and counting do not page through vectors.
CREATE TABLE vectors (
    entry_id INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
    vector BLOB NOT NULL  -- float32, little-endian, unit length
) STRICT;

CREATE TABLE idempotency (
    gallery_id INTEGER NOT NULL REFERENCES galleries ON DELETE CASCADE,
    key TEXT NOT NULL,
    request TEXT NOT NULL,  -- SHA-256 of what was asked
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (gallery_id, key)
) STRICT;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- The gallery by name: the record of an erased gallery outlives it.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    gallery TEXT NOT NULL,
    count INTEGER NOT NULL
) STRICT;
CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit is append-only'); END
"""
