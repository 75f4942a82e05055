"""API keys with scopes, expiry and a rate limit. A key is shown once, at its creation; the database has its SHA-256."""

import getpass
import hashlib
import hmac
import ipaddress
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from service.auth.rate_limit import TokenBucketLimiter
from service.core.choices import Scope
from service.core.clock import now
from service.core.errors import Conflict, Forbidden, NotFound, StartupError, Unauthenticated
from service.storage.audit import insert_audit
from service.storage.database import Database

ADMIN_KEY_FILE = "admin-key-file"  # in the audit: a caller with the key from --admin-key-file
UNKNOWN = "unknown"  # in the audit: a caller without a key and without a valid address
_RESERVED = frozenset({ADMIN_KEY_FILE, UNKNOWN})  # no key has such a name, nor that of an address

_PREFIX = "pan"  # by which scanners for leaked secrets recognise a key
_MIN_ADMIN_KEY_LENGTH = 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret. `rate` is in requests per second, None is unlimited; times in microseconds."""

    name: str
    scopes: frozenset[str]
    rate: float | None = None
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None

    @property
    def state(self) -> Literal["valid", "expired", "revoked"]:
        """Whether the key is accepted now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "valid"

    def require(self, scope: str) -> None:
        """Raises Forbidden if the key lacks a scope. `admin` includes all scopes."""
        if not self.scopes & {scope, "admin"}:
            raise Forbidden(f"the key {self.name} has no scope {scope}; create one with `--scope {scope}`", scope)


class Authenticator:
    """Checks the API keys of requests against those in the database and an optional administrator key from a file."""

    def __init__(self, database: Database, admin_key: str | None) -> None:
        """Raises StartupError for an administrator key that is too short."""
        if admin_key is not None and len(admin_key) < _MIN_ADMIN_KEY_LENGTH:
            raise StartupError(
                f"the administrator key has {len(admin_key)} characters and needs at least {_MIN_ADMIN_KEY_LENGTH}; "
                "generate one with: openssl rand -hex 32"
            )
        self._database = database
        self._admin_digest = None if admin_key is None else _digest(admin_key)
        self._required = admin_key is not None
        self._limiter = TokenBucketLimiter()

    def required(self) -> bool:
        """Whether requests need a key. They do once any key was created, even if it is revoked."""
        if not self._required:
            self._required = self._database.read_inline(_has_keys)
        return self._required

    def authenticate(self, token: str | None) -> ApiKey | None:
        """The key of a request, counted against its rate limit; None while no key is required.

        Reads the database on every request, so that a revoked key is rejected at once. Raises Unauthenticated and
        RateLimited.
        """
        if not self.required():
            return None
        if token is None:
            raise Unauthenticated("this call needs an API key: send it as `Authorization: Bearer <key>`", "no key")
        digest = _digest(token)
        if self._admin_digest is not None and hmac.compare_digest(digest, self._admin_digest):
            return ApiKey(ADMIN_KEY_FILE, frozenset({Scope.ADMIN}))
        found = self._database.read_inline(lambda db: _select(db, _id_of(token)))
        if found is None or not hmac.compare_digest(digest, found[1]):
            raise Unauthenticated(
                "the API key is unknown; check that it is complete, and of this service", "unknown key"
            )
        key = found[0]
        if key.state != "valid":
            raise Unauthenticated(
                f"the API key {key.name} is {key.state}; use another key", f"key {key.name} is {key.state}"
            )
        if key.rate is not None:
            self._limiter.take(key.name, key.rate)
        return key


def create_key(
    db: sqlite3.Connection, name: str, scopes: frozenset[str], rate: float | None, expires_at: int | None
) -> str:
    """Create a key and return it with its secret, which cannot be shown again.

    Raises Conflict if the name is or was in use, or has another meaning in the audit.
    """
    if is_reserved(name):
        raise Conflict(f"in the audit, the name {name} denotes callers without a key; choose another name")
    id_ = secrets.token_hex(6)
    token = f"{_PREFIX}_{id_}_{secrets.token_urlsafe(32)}"
    try:
        with _transaction(db):
            db.execute(
                "INSERT INTO keys (id, name, digest, scopes, rate, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id_, name, _digest(token), " ".join(sorted(scopes)), rate, now(), expires_at),
            )
            insert_audit(db, _command_user(), "create-key", "", 0, detail=name)
    except sqlite3.IntegrityError:
        raise Conflict(f"there is or was a key {name}, which the audit refers to; choose another name") from None
    return token


def is_reserved(name: str) -> bool:
    """Whether the audit uses this name for callers without a key: an address, or one of two constants."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in _RESERVED
    return True


def list_keys(db: sqlite3.Connection) -> list[ApiKey]:
    """All keys, including expired and revoked ones, in the order of creation."""
    return [_from_row(row) for row in db.execute("SELECT * FROM keys ORDER BY created_at, name")]


def revoke_key(db: sqlite3.Connection, name: str) -> None:
    """Revoke a key; requests with it fail from now on. Raises NotFound."""
    with _transaction(db):
        cursor = db.execute("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE name = ?", (now(), name))
        if cursor.rowcount == 0:
            raise NotFound(f"there is no key {name}; `pan-serve key list` shows all keys")
        insert_audit(db, _command_user(), "revoke-key", "", 0, detail=name)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction, or a savepoint within the transaction of the caller."""
    db.execute("SAVEPOINT keys")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK TO keys")
        raise
    finally:
        db.execute("RELEASE keys")


def _command_user() -> str:
    """The operating system user who runs the command, for the audit. No key has such a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no user name for this id
        user = str(os.getuid())
    return f"(command of {user})"


def _select(db: sqlite3.Connection, id_: str) -> tuple[ApiKey, bytes] | None:
    row = db.execute("SELECT * FROM keys WHERE id = ?", (id_,)).fetchone()
    return None if row is None else (_from_row(row), row["digest"])


def _has_keys(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None


def _from_row(row: sqlite3.Row) -> ApiKey:
    scopes = frozenset(row["scopes"].split())
    return ApiKey(row["name"], scopes, row["rate"], row["created_at"], row["expires_at"], row["revoked_at"])


def _id_of(token: str) -> str:
    """The public part of a key. The look-up uses it, so that the secret is only compared in constant time."""
    return token.split("_", 2)[1] if token.startswith(f"{_PREFIX}_") else ""


def _digest(token: str) -> bytes:
    # A fast hash without salt suffices: salt and stretching protect passwords that people choose, and a key has 256
    # random bits.
    return hashlib.sha256(token.encode()).digest()
