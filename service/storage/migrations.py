"""The schema of the gallery database, as a sequence of migrations. Times are microseconds since 1970-01-01 UTC."""

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

-- AUTOINCREMENT: ids ascend in the order of enrolment and are never reused.
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

-- Not in entries, so that listing and counting do not read the pages of vectors.
CREATE TABLE vectors (
    entry_id INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
    vector BLOB NOT NULL  -- float32, little-endian, unit length
) STRICT;

CREATE TABLE idempotency (
    gallery_id INTEGER NOT NULL REFERENCES galleries ON DELETE CASCADE,
    key TEXT NOT NULL,
    request TEXT NOT NULL,  -- SHA-256 of the request
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (gallery_id, key)
) STRICT;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- By name and without a reference: the audit of a gallery remains after its deletion.
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
-- Revoked keys are never deleted: once a key exists the service requires one for ever, and a name in the audit always
-- refers to the same key.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,  -- the part of the key that is not secret
    name TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,  -- SHA-256 of the key
    scopes TEXT NOT NULL,  -- separated by spaces
    rate REAL,  -- requests per second; null means unlimited
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT
"""

_RETENTION = """
ALTER TABLE galleries ADD COLUMN retention INTEGER;  -- microseconds; null means that entries do not expire
-- A crop with a time in the future, from a camera with a wrong clock, expires no later than the others.
ALTER TABLE entries ADD COLUMN since INTEGER AS (min(coalesce(captured_at, created_at), created_at)) VIRTUAL;
CREATE INDEX entries_by_age ON entries (gallery_id, since)
"""

_SNAPSHOTS = """
-- The valid snapshot file of a gallery's index. After a restore, the database names another file than the one in the
-- data folder, or none.
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
    image BLOB NOT NULL  -- JPEG, encoded by this service
) STRICT
"""

_REEMBEDDING = """
-- The running or last re-embedding of each gallery.
CREATE TABLE reembeddings (
    gallery_id INTEGER PRIMARY KEY REFERENCES galleries ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,  -- of the new model
    droppable INTEGER NOT NULL,  -- maximum number of entries without a usable picture that may be deleted
    finished_at INTEGER,
    dropped INTEGER NOT NULL,
    overwritten INTEGER NOT NULL
) STRICT;
CREATE TABLE reembedded (
    entry_id INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
    vector BLOB  -- as in vectors, of the new model; null if it could not embed the picture
) STRICT
"""

_REPAIRS = """
-- Earlier releases accepted times out of range, enrolment times in the future and a retention of 0. Clamp them to the
-- years 1 to 9999 and to 0.001 days. A system clock before 2026 is wrong, so it is not used for comparison.
UPDATE entries SET captured_at = max(-62135596800000000, min(captured_at, 253402300799999999))
    WHERE captured_at NOT BETWEEN -62135596800000000 AND 253402300799999999;
UPDATE entries SET created_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000
    WHERE created_at > (CAST(strftime('%s', 'now') AS INTEGER) + 1) * 1000000
    AND strftime('%Y', 'now') >= '2026';
UPDATE entries SET created_at = max(-62135596800000000, min(created_at, 253402300799999999))
    WHERE created_at NOT BETWEEN -62135596800000000 AND 253402300799999999;
UPDATE galleries SET retention = 86400000 WHERE retention < 86400000;
-- The name of a key that was created or revoked, or the reason of a refused call.
ALTER TABLE audit ADD COLUMN detail TEXT NOT NULL DEFAULT ''
"""

# Released migrations never change: an older database is upgraded by the ones that it lacks.
MIGRATIONS = (_GALLERIES, _KEYS, _RETENTION, _SNAPSHOTS, _CROPS, _REEMBEDDING, _REPAIRS)
SCHEMA_VERSION = len(MIGRATIONS)
