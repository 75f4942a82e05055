"""Malformed, revoked and overused API keys, and places where no secret may appear."""

import json
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.common.served import Served
from service.auth.keys import revoke_key
from service.core.choices import Scope
from service.storage.connection import connect_for_command
from service.storage.data_dir import DATABASE
from tests.attack.conftest import VECTOR, logged_errors
from tests.support.keys import bearer, make_key
from tests.support.pictures import png


@dataclass(frozen=True)
class Guarded:
    """A server that requires API keys."""

    server: Served
    http: httpx.Client
    data: Path
    log: Path
    admin: str

    def key(self, name: str, *scopes: Scope, rate: float | None = None) -> str:
        return make_key(self.data, name, *scopes, rate=rate)

    def get(self, path: str, authorization: bytes) -> httpx.Response:
        return self.http.get(path, headers=[(b"Authorization", authorization)])


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    data, log = folder / "data", folder / "log"
    admin = make_key(data, "root", Scope.ADMIN)
    server = Served(bundle, data, log)
    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield Guarded(server, http, data, log, admin)
    assert server.stop() == 0
    assert logged_errors(log) == []


def test_a_malformed_key_is_rejected(guarded: Guarded) -> None:
    key = guarded.admin
    prefix, id_, secret = key.split("_", 2)
    assert guarded.get("/v1/galleries", f"Bearer {key}".encode()).status_code == 200
    for malformed in [
        "",
        "Bearer",
        f"Basic {key}",
        f"Bearer {key[:-1]}",
        f"Bearer {key}x",
        f"Bearer {key.swapcase()}",
        f"Bearer {prefix}_{id_}",
        f"Bearer {prefix}_{id_}_",
        f"Bearer {prefix}_%_{secret}",
        f"Bearer {prefix}_' OR 1=1 --_{secret}",
        f"Bearer {prefix}__{secret}",
        f"Bearer {id_}_{secret}",
        f"Bearer {secret}",
        "Bearer " + "x" * 20_000,
        f"Bearer {key}, Bearer {key}",
        f"Bearer {key} {key}",
    ]:
        answer = guarded.get("/v1/galleries", malformed.encode())
        assert answer.status_code == 401, malformed
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert secret not in answer.text
    assert guarded.get("/v1/galleries", b"Bearer \xff\xfe_\xff").status_code == 401
    assert guarded.http.get(f"/v1/galleries?access_token={key}").status_code in (401, 422)
    assert guarded.http.get("/v1/galleries", headers={"Cookie": f"Authorization=Bearer {key}"}).status_code == 401


def test_without_a_key_the_body_is_not_read(guarded: Guarded) -> None:
    where = urlsplit(guarded.server.url)
    for path in ("embeddings", "galleries", "galleries/g/entries", "galleries/g/entries/stream", "galleries/g/import"):
        with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + b"Content-Length: 1000000\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")  # although the body never arrives


def test_the_rate_limit_holds_for_concurrent_requests(guarded: Guarded) -> None:
    key = guarded.key("slow", rate=0.01)
    with ThreadPoolExecutor(20) as threads:
        found = threads.map(lambda _: guarded.get("/v1/galleries", f"Bearer {key}".encode()), range(20))
        assert Counter(answer.status_code for answer in found) == {200: 1, 429: 19}


def test_a_revoked_key_is_rejected_at_once(guarded: Guarded) -> None:
    key = guarded.key("leaked", Scope.ADMIN)
    headers = bearer(key)
    assert guarded.http.post("/v1/galleries", json={"name": "g"}, headers=headers).status_code == 201
    with connect_for_command(guarded.data / DATABASE) as db:
        revoke_key(db, "leaked")
    assert guarded.http.delete("/v1/galleries/g", headers=headers).status_code == 401
    assert guarded.get("/v1/galleries", f"Bearer {guarded.admin}".encode()).json()["galleries"][0]["name"] == "g"


def test_no_log_metric_or_audit_line_has_a_key_or_a_person(guarded: Guarded) -> None:
    headers = bearer(guarded.admin)
    http = guarded.http
    secret = "a-very-odd-name"
    http.post("/v1/galleries", json={"name": "s"}, headers=headers)
    entry = {"vector": VECTOR, "person_id": secret, "camera_id": secret, "attributes": {secret: secret}}
    assert http.post("/v1/galleries/s/entries", json={"entries": [entry]}, headers=headers).status_code == 201
    for call in (
        lambda: http.get("/v1/galleries/s/entries", params={"person_id": secret}, headers=headers),
        lambda: http.post("/v1/galleries/s/search", json={"vector": VECTOR, "persons": [secret]}, headers=headers),
        lambda: http.request("DELETE", "/v1/galleries/s/persons", params={"person_id": secret}, headers=headers),
        lambda: http.post("/v1/galleries/s/search", content=png(1), params={"persons": secret}, headers=headers),
        lambda: http.get(f"/{secret}", headers={**headers, "User-Agent": secret, "Referer": secret}),
        lambda: http.get(f"/v1/galleries/s/entries/{secret}", headers=headers),
    ):
        call()
    with closing(sqlite3.connect(guarded.data / "pan.sqlite3")) as db:
        audit = json.dumps(db.execute("SELECT * FROM audit").fetchall())
    seen = guarded.log.read_text() + http.get("/metrics", headers=headers).text + audit
    assert secret not in seen
    assert guarded.admin not in seen
    assert guarded.admin.split("_", 2)[2] not in seen
