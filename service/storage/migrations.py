"""The tables of the gallery database, as the steps that lead to them. Times are microseconds since 1970, UTC."""

_GALLERIES = """
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

_KEYS = """
-- A row outlives its key: once there was a key the service never opens to everybody again, and a name in the audit
-- stays that of one key.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,  -- the part of the key that is no secret
    name TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,  -- SHA-256 of the key
    scopes TEXT NOT NULL,  -- separated by blanks
    rate REAL,  -- requests a second; null is as many as come
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT
"""

_RETENTION = """
ALTER TABLE galleries ADD COLUMN retention INTEGER;  -- microseconds; null keeps an entry until it is deleted
-- A crop with a time in the future, from a camera whose clock is wrong, is kept no longer than the others.
ALTER TABLE entries ADD COLUMN since INTEGER AS (min(coalesce(captured_at, created_at), created_at)) VIRTUAL;
CREATE INDEX entries_by_age ON entries (gallery_id, since)
"""

_SNAPSHOTS = """
-- Which file of a gallery's index is the right one. A database that was restored from a backup names another than the
-- one that lies there, or none.
CREATE TABLE snapshots (
    gallery_id INTEGER PRIMARY KEY REFERENCES galleries ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL  -- SHA-256 of the file
) STRICT
"""

_CROPS = """
ALTER TABLE galleries ADD COLUMN keep_crops INTEGER NOT NULL DEFAULT 0;
CREATE TABLE crops (
    entry_id INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
    image BLOB NOT NULL  -- JPEG, of this service's making
) STRICT
"""

_REEMBEDDING = """
-- Galleries on their way to another model, and the last way of each that has arrived.
CREATE TABLE reembeddings (
    gallery_id INTEGER PRIMARY KEY REFERENCES galleries ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,  -- of that model
    droppable INTEGER NOT NULL,  -- entries that may be erased at the end because they keep no usable picture
    finished_at INTEGER,
    dropped INTEGER NOT NULL,
    overwritten INTEGER NOT NULL
) STRICT;
CREATE TABLE reembedded (
    entry_id INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
    vector BLOB  -- as in vectors, by that model; null where the picture cannot be used
) STRICT
"""

_REPAIRS = """
-- Earlier releases took times that no calendar holds, enrolments that are still to come and a retention of nothing.
-- The numbers are the years 1 to 9999, and 0.001 days. A clock that stands before 2026 is wrong, and says nothing.
UPDATE entries SET captured_at = max(-62135596800000000, min(captured_at, 253402300799999999))
    WHERE captured_at NOT BETWEEN -62135596800000000 AND 253402300799999999;
UPDATE entries SET created_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000
    WHERE created_at > (CAST(strftime('%s', 'now') AS INTEGER) + 1) * 1000000
    AND strftime('%Y', 'now') >= '2026';
UPDATE entries SET created_at = max(-62135596800000000, min(created_at, 253402300799999999))
    WHERE created_at NOT BETWEEN -62135596800000000 AND 253402300799999999;
UPDATE galleries SET retention = 86400000 WHERE retention < 86400000;
-- The name of the key that was made or revoked, and why a call was refused.
ALTER TABLE audit ADD COLUMN detail TEXT NOT NULL DEFAULT ''
"""

# A database of an earlier release is brought up to date by the steps it has not seen. A step is never changed.
MIGRATIONS = (_GALLERIES, _KEYS, _RETENTION, _SNAPSHOTS, _CROPS, _REEMBEDDING, _REPAIRS)
SCHEMA_VERSION = len(MIGRATIONS)
