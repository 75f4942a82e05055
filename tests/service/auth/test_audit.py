"""The audit of authenticated and of refused calls."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.common.served import Served
from service.auth.keys import revoke_key
from service.auth.refusals import RefusalLog
from service.core.choices import Scope
from service.observability.metrics import Metrics
from service.storage.connection import connect_for_command
from service.storage.data_dir import DATABASE
from service.storage.database import Database
from tests.service.auth.conftest import VECTOR, Guarded
from tests.support.keys import audit_of, bearer, make_key

Launch = Callable[..., Served]


def test_the_audit_has_the_name_of_the_key(guarded: Guarded) -> None:
    guarded.ask("enrol", "POST", "/v1/galleries/lobby/entries", json={"entries": [VECTOR]})
    guarded.ask("search", "POST", "/v1/galleries/lobby/search", json=VECTOR)
    with sqlite3.connect(guarded.data / "pan.sqlite3") as db:
        audit = db.execute("SELECT who, action FROM audit ORDER BY id").fetchall()
    db.close()
    changes = [line for line in audit if line[1] not in {"create-key", "revoke-key", "refused"}]
    assert changes[0] == ("admin-only", "create-gallery")
    assert changes[-2:] == [("enrol-only", "enrol"), ("search-only", "search")]


def test_refused_calls_are_counted_per_caller_and_reason(launch: Launch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    search, gone = make_key(data, "ann", Scope.SEARCH), make_key(data, "bob")
    with connect_for_command(data / DATABASE) as db:
        revoke_key(db, "bob")
    server = launch()
    with httpx.Client(base_url=server.url) as http:
        for key in (None, "pan_0_guess", f"pan_0_{'x' * 1000}", search, search, gone):
            status = 401 if key != search else 403
            headers = {} if key is None else bearer(key)
            for _ in range(10):
                assert http.delete("/v1/galleries/secret-name", headers=headers).status_code == status
    assert server.stop() == 0  # shutdown writes the pending counts
    refused = {(who, detail): count for who, action, count, detail in audit_of(data) if action == "refused"}
    assert refused == {
        ("127.0.0.1", "no key"): 10,
        ("127.0.0.1", "unknown key"): 20,
        ("ann", "no scope admin"): 20,
        ("127.0.0.1", "key bob is revoked"): 10,
    }


def test_refused_calls_from_many_addresses_are_counted_together(tmp_path: Path) -> None:
    metrics = Metrics()
    database = Database(tmp_path / DATABASE, metrics)

    async def test() -> None:
        refusals = RefusalLog(database, metrics)
        async with refusals.running():
            for n in range(10_000):
                refusals.count(f"2001:db8::{n:x}", None, "no key")
            refusals.count("2001:db8::1", "ann", "no scope erase")

    asyncio.run(test())
    database.close()
    lines = audit_of(tmp_path)
    assert len(lines) < 30
    assert sum(count for _, _, count, _ in lines) == 10_001
    assert ("(others)", "refused", 9980, "no key") in lines
    assert ("ann", "refused", 1, "no scope erase") in lines
