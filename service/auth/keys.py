"""API keys: who may do what, and how often. A key is shown once, when it is made; only its digest is kept."""

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

ADMIN_KEY_FILE = "admin-key-file"  # in the audit: whoever held the key of that file
UNKNOWN = "unknown"  # in the audit: a caller without key and address
_RESERVED = frozenset({ADMIN_KEY_FILE, UNKNOWN})  # and addresses: of callers without a key

_PREFIX = "pan"  # lets scanners for leaked secrets recognise a key
_SHORTEST_ADMIN_KEY = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. `rate` is in requests a second, None without a limit; times in microseconds."""

    name: str
    scopes: frozenset[str]
    rate: float | None = None
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None

    @property
    def state(self) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens anything now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "valid"

    def require(self, scope: str) -> None:
        """Raises Forbidden. `admin` includes every other scope."""
        if not self.scopes & {scope, "admin"}:
            raise Forbidden(f"the key {self.name} has no scope {scope}; make one with `--scope {scope}`", scope)


class Keys:
    """The keys of a running service: those of its database, and perhaps one of an administrator from a file."""

    def __init__(self, database: Database, admin_key: str | None) -> None:
        """Raises StartupError for an administrator's key that could be guessed."""
        if admin_key is not None and len(admin_key) < _SHORTEST_ADMIN_KEY:
            raise StartupError(
                f"the administrator's key has {len(admin_key)} characters, at least {_SHORTEST_ADMIN_KEY} are "
                "needed; make one with: openssl rand -hex 32"
            )
        self._database = database
        self._admin_digest = None if admin_key is None else _digest(admin_key)
        self._required = admin_key is not None
        self._rates = TokenBucketLimiter()

    def required(self) -> bool:
        """Whether callers need a key. Once there is a key, or was one, they do."""
        if not self._required:
            self._required = self._database.read_inline(_any_key)
        return self._required

    def authenticate(self, token: str | None) -> Key | None:
        """The key that was sent, counted against its rate; None while none is required.

        The database is asked each time, so a key that is revoked opens nothing from then on.
        Raises Unauthenticated or RateLimited.
        """
        if not self.required():
            return None
        if token is None:
            raise Unauthenticated("this call needs an API key: send it as `Authorization: Bearer <key>`", "no key")
        digest = _digest(token)
        if self._admin_digest is not None and hmac.compare_digest(digest, self._admin_digest):
            return Key(ADMIN_KEY_FILE, frozenset({Scope.ADMIN}))
        found = self._database.read_inline(lambda db: _select(db, _id_of(token)))
        if found is None or not hmac.compare_digest(digest, found[1]):
            raise Unauthenticated("this API key is not known here", "unknown key")
        key = found[0]
        if key.state != "valid":
            raise Unauthenticated(f"the API key {key.name} is {key.state}", f"key {key.name} is {key.state}")
        if key.rate is not None:
            self._rates.take(key.name, key.rate)
        return key


def create_key(
    db: sqlite3.Connection, name: str, scopes: frozenset[str], rate: float | None, expires_at: int | None
) -> str:
    """Make a key and return it, for the only time.

    Raises Conflict when the name is or was taken, or would pass in the audit for another caller than a key.
    """
    if is_reserved(name):
        raise Conflict(f"{name} stands for another caller in the audit; choose another name")
    id_ = secrets.token_hex(6)
    token = f"{_PREFIX}_{id_}_{secrets.token_urlsafe(32)}"
    try:
        with _transaction(db):
            db.execute(
                "INSERT INTO keys (id, name, digest, scopes, rate, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id_, name, _digest(token), " ".join(sorted(scopes)), rate, now(), expires_at),
            )
            insert_audit(db, _commander(), "create-key", "", 0, detail=name)
    except sqlite3.IntegrityError:
        raise Conflict(f"there is or was a key {name}, and the audit names it; choose another name") from None
    return token


def is_reserved(name: str) -> bool:
    """Whether the audit has this name for callers without a key of this name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in _RESERVED
    return True


def list_keys(db: sqlite3.Connection) -> list[Key]:
    """Every key there is or was, in the order in which they were made."""
    return [_key(row) for row in db.execute("SELECT * FROM keys ORDER BY created_at, name")]


def revoke_key(db: sqlite3.Connection, name: str) -> None:
    """From here on the key opens nothing. Raises NotFound."""
    with _transaction(db):
        cursor = db.execute("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE name = ?", (now(), name))
        if cursor.rowcount == 0:
            raise NotFound(f"there is no key {name}; `pan-serve key list` shows those there are")
        insert_audit(db, _commander(), "revoke-key", "", 0, detail=name)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, by itself or as a part of a greater transaction."""
    db.execute("SAVEPOINT keys")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK TO keys")
        raise
    finally:
        db.execute("RELEASE keys")


def _commander() -> str:
    """Who runs the command, for the audit. No key has such a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without an entry in the list of users, as in a container
        user = str(os.getuid())
    return f"(command of {user})"


def _select(db: sqlite3.Connection, id_: str) -> tuple[Key, bytes] | None:
    row = db.execute("SELECT * FROM keys WHERE id = ?", (id_,)).fetchone()
    return None if row is None else (_key(row), row["digest"])


def _any_key(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None


def _key(row: sqlite3.Row) -> Key:
    scopes = frozenset(row["scopes"].split())
    return Key(row["name"], scopes, row["rate"], row["created_at"], row["expires_at"], row["revoked_at"])


def _id_of(token: str) -> str:
    """The part of a key by which it is looked up, so that the secret itself is only ever compared in constant time."""
    return token.split("_", 2)[1] if token.startswith(f"{_PREFIX}_") else ""


def _digest(token: str) -> bytes:
    # A fast hash is right here, and salt or stretching would add nothing: they slow down the guessing of what people
    # make up, and 256 random bits cannot be guessed at any speed.
    return hashlib.sha256(token.encode()).digest()
