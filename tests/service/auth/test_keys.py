"""API keys: made and revoked by the real commands beside a real server, and what each lets its holder do."""

import asyncio
import getpass
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from pan_reid import ApiError, Client, Crop
from pan_reid.schemas import EntryInfo
from service.auth.keys import create_key, revoke_key
from service.auth.rate_limit import TokenBucketLimiter
from service.auth.refusals import Refusals
from service.core.choices import Scope
from service.core.errors import RateLimited
from service.core.settings import Settings
from service.observability.metrics import Metrics
from service.storage.connection import connect_for_command
from service.storage.data_dir import DATABASE, prepare_data_dir
from service.storage.database import Database
from tests.support.pictures import png, write_market
from tests.support.servers import pan_reid, pan_serve, running

Launch = Callable[..., Served]
VECTOR = {"vector": [1.0] * 64}


def make_key(data: Path, name: str, *scopes: Scope, rate: float | None = None) -> str:
    """As the command below makes it, without waiting for a process to start."""
    prepare_data_dir(data)
    with connect_for_command(data / DATABASE, create=True) as db:
        return create_key(db, name, frozenset(scopes), rate, None)


def made_key(data: Path, name: str, *options: str) -> str:
    made = pan_serve("key", "create", name, "--data", str(data), *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True)
class Guarded:
    """A server with one key for each scope, one without any, and a gallery `lobby`."""

    http: httpx.Client
    data: Path
    keys: dict[str, str]

    def ask(self, scope: str, method: str, path: str, **more: object) -> httpx.Response:
        return self.http.request(method, path, headers=bearer(self.keys[scope]), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    data = folder / "data"
    keys = {scope: make_key(data, f"{scope}-only", scope) for scope in Scope}
    keys["none"] = make_key(data, "monitoring")
    server = Served(bundle, data, folder / "log")
    with httpx.Client(base_url=server.url, timeout=30) as http:
        found = Guarded(http, data, keys)
        assert found.ask("admin", "POST", "/v1/galleries", json={"name": "lobby"}).status_code == 201
        yield found
    assert server.stop() == 0


# What each call needs, said once more and apart from the code; None: any key.
CALLS = [
    ("POST", "/v1/embeddings", "embed"),
    ("POST", "/v1/explain", "embed"),
    ("POST", "/v1/compare", "embed"),
    ("POST", "/v1/galleries/lobby/search", "search"),
    ("GET", "/v1/galleries/lobby/entries/999999", "export"),
    ("POST", "/v1/galleries/lobby/entries", "enrol"),
    ("POST", "/v1/galleries/lobby/entries/stream", "enrol"),
    ("PATCH", "/v1/galleries/lobby/entries/999999", "enrol"),
    ("DELETE", "/v1/galleries/lobby/entries/999999", "erase"),
    ("DELETE", "/v1/galleries/lobby/persons?person_id=nobody", "erase"),
    ("POST", "/v1/galleries/lobby/purge", "erase"),
    ("POST", "/v1/galleries/lobby/export", "export"),
    ("POST", "/v1/galleries/lobby/import", "admin"),
    ("POST", "/v1/galleries/lobby/re-embed", "admin"),
    ("GET", "/v1/galleries/lobby/re-embed", None),
    ("GET", "/v1/galleries/lobby/entries", "export"),
    ("GET", "/v1/galleries/lobby/entries/999999/image", "export"),
    ("GET", "/v1/galleries/lobby/persons", "export"),
    ("POST", "/v1/galleries", "admin"),
    ("PATCH", "/v1/galleries/lobby", "admin"),
    ("DELETE", "/v1/galleries/nowhere", "admin"),
    ("GET", "/v1/galleries", None),
    ("GET", "/v1/galleries/lobby", None),
    ("GET", "/v1/model", None),
    ("GET", "/metrics", None),
]


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_a_call_is_open_to_the_keys_of_its_scope_only(
    guarded: Guarded, method: str, path: str, scope: str | None
) -> None:
    for holder in guarded.keys:
        answer = guarded.ask(holder, method, path)
        if scope in (None, holder) or holder == "admin":
            assert answer.status_code not in {401, 403}, holder
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), holder
            assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    document = guarded.http.get("/openapi.json").json()
    path = re.sub("/entries/[0-9]+", "/entries/{entry_id}", path.partition("?")[0])
    call = document["paths"][re.sub("galleries/[a-z]+", "galleries/{gallery}", path)][method.lower()]
    assert call["security"] == [{"apiKey": [scope] if scope else []}]
    assert {"401", "403", "429"} <= set(call["responses"])


def test_every_call_that_tells_of_galleries_is_in_the_table_above(guarded: Guarded) -> None:
    document = guarded.http.get("/openapi.json").json()
    calls = {(method, path) for path, item in document["paths"].items() for method in item}
    unguarded = {(method, path) for method, path in calls if "security" not in document["paths"][path][method]}
    assert unguarded == {("get", "/healthz"), ("get", "/readyz")}
    assert len(calls) == len(CALLS) + len(unguarded)
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer pan_",
        "Bearer pan__",
        "Bearer none",
        "Bearer pan_\xe9_x",
        "Basic eDp5",
    ],
)
def test_without_a_key_that_is_known_nothing_is_told(guarded: Guarded, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    for method, path, _ in CALLS:
        answer = guarded.http.request(method, path, headers=headers)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"] == 'Bearer realm="pan-reid"'
        assert "lobby" not in answer.text
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert guarded.http.get(path, headers=headers).status_code == 200  # type: ignore[arg-type]


def test_a_key_that_differs_by_one_character_is_not_known(guarded: Guarded) -> None:
    key = guarded.keys["admin"]
    for place in (0, 5, len(key) // 2, len(key) - 1):
        wrong = key[:place] + ("x" if key[place] != "x" else "y") + key[place + 1 :]
        assert guarded.http.get("/v1/model", headers=bearer(wrong)).status_code == 401
    assert guarded.http.get("/v1/model", headers=bearer(key)).status_code == 200


def test_only_digests_of_keys_are_on_the_disk_and_none_is_listed(guarded: Guarded) -> None:
    everything = b"".join(path.read_bytes() for path in guarded.data.iterdir())
    assert b"search-only" in everything
    listed = pan_serve("key", "list", "--data", str(guarded.data)).stdout
    assert "search-only" in listed
    for key in guarded.keys.values():
        secret = key.split("_", 2)[2]
        assert len(secret) == 43  # 256 bits in base64
        assert secret.encode() not in everything
        assert secret not in listed


def test_the_audit_names_the_key(guarded: Guarded) -> None:
    guarded.ask("enrol", "POST", "/v1/galleries/lobby/entries", json={"entries": [VECTOR]})
    guarded.ask("search", "POST", "/v1/galleries/lobby/search", json=VECTOR)
    with sqlite3.connect(guarded.data / "pan.sqlite3") as db:
        audit = db.execute("SELECT who, action FROM audit ORDER BY id").fetchall()
    db.close()
    changes = [line for line in audit if line[1] not in {"create-key", "revoke-key", "refused"}]
    assert changes[0] == ("admin-only", "create-gallery")
    assert changes[-2:] == [("enrol-only", "enrol"), ("search-only", "search")]


def test_the_first_key_shuts_a_running_service_and_a_revoked_one_opens_nothing(launch: Launch, tmp_path: Path) -> None:
    server, data = launch(), tmp_path / "data"
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["level"] for line in log if "there is no API key" in line["message"]] == ["warning"]
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/v1/model").status_code == 200
        key = made_key(data, "ann", "--scope", "search")
        assert http.get("/v1/model").status_code == 401
        assert http.get("/v1/model", headers=bearer(key)).status_code == 200
        assert "revoked ann" in pan_serve("key", "revoke", "ann", "--data", str(data)).stdout
        assert "revoked" in http.get("/v1/model", headers=bearer(key)).json()["detail"]
        taken = pan_serve("key", "create", "ann", "--data", str(data))
        assert (taken.returncode, "choose another name" in taken.stderr, taken.stdout) == (1, True, "")
    server.stop()
    assert httpx.get(f"{launch().url}/v1/model").status_code == 401  # no key is left, and it does not open again


def test_an_expired_key_opens_nothing(launch: Launch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = made_key(data, "guest", "--expires", "12h")
    url = launch().url
    assert httpx.get(f"{url}/v1/model", headers=bearer(key)).status_code == 200
    with sqlite3.connect(data / "pan.sqlite3") as db:  # thirteen hours later
        db.execute("UPDATE keys SET expires_at = expires_at - 13 * 3600 * 1000000")
    db.close()
    answer = httpx.get(f"{url}/v1/model", headers=bearer(key))
    assert (answer.status_code, "expired" in answer.json()["detail"]) == (401, True)
    assert "expired" in pan_serve("key", "list", "--data", str(data)).stdout


@pytest.mark.parametrize(
    "arguments",
    [("create", "a/b"), ("create", "a", "--scope", "all"), ("create", "a", "--expires", "soon"), ("revoke", "nobody")],
)
def test_the_key_commands_say_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    make_key(tmp_path, "ann")
    done = pan_serve("key", *arguments, "--data", str(tmp_path))
    assert done.returncode != 0
    assert arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_a_key_it_listens_on_this_machine_only(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    arguments = ["--bundle", str(bundle), "--data", str(tmp_path / "data"), "--port", "0", "--host", "0.0.0.0"]
    refused = pan_serve("run", *arguments)
    assert refused.returncode == 1
    assert "there is no API key" in refused.stderr
    assert "--insecure-no-auth" in refused.stderr
    assert refused.stdout == ""
    assert launch("--host", "0.0.0.0", "--insecure-no-auth").stop() == 0
    make_key(tmp_path / "data", "ann")
    server = launch("--host", "0.0.0.0")
    assert httpx.get(server.url.replace("0.0.0.0", "127.0.0.1") + "/v1/model").status_code == 401


def test_an_administrators_key_comes_from_a_file(
    launch: Launch, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    monkeypatch.setenv("PAN_ADMIN_KEY_FILE", str(secret))
    for text, says in [(None, "No such file"), ("\n", "it is empty"), ("swordfish\n", "openssl rand")]:
        if text is not None:
            secret.write_text(text)
        done = pan_serve("run", "--bundle", str(bundle), "--data", str(tmp_path / "data"), "--port", "0")
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        assert "swordfish" not in done.stderr
    key = os.urandom(32).hex()
    secret.write_text(f"{key}\n")
    server = launch("--host", "0.0.0.0")
    with httpx.Client(base_url=server.url.replace("0.0.0.0", "127.0.0.1")) as http:
        assert http.post("/v1/galleries", json={"name": "lobby"}).status_code == 401
        assert http.post("/v1/galleries", json={"name": "lobby"}, headers=bearer(key)).status_code == 201
    server.stop()
    assert key not in (tmp_path / "log").read_text()
    assert key.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())


def test_the_client_and_the_command_line_send_the_key(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(guarded.http.base_url)
    with Client(url) as client, pytest.raises(ApiError, match="needs an API key"):
        client.model()
    with Client(url, api_key=guarded.keys["enrol"]) as client:
        client.enrol("lobby", [Crop(png(7), EntryInfo(person_id="seven"))])
        with pytest.raises(ApiError, match="no scope search"):
            client.search("lobby", png(7))
    picture, key_file = tmp_path / "a.png", tmp_path / "key"
    picture.write_bytes(png(7))
    key_file.write_text(guarded.keys["search"] + "\n")
    search = ("search", str(picture), "--gallery", "lobby", "--url", url, "--json")
    assert "needs an API key" in pan_reid(*search).stderr
    by_file = json.loads(pan_reid(*search, "--api-key-file", str(key_file)).stdout)
    assert by_file["hits"][0]["person_id"] == "seven"
    monkeypatch.setenv("PAN_API_KEY", guarded.keys["search"])
    assert json.loads(pan_reid(*search).stdout) == by_file
    crops = write_market(tmp_path / "market", persons=2, cameras=2)
    monkeypatch.setenv("PAN_API_KEY", guarded.keys["enrol"])
    enrol = ("enrol", str(crops), "--url", url, "--gallery")
    assert pan_reid(*enrol, "lobby").returncode == 0
    refused = pan_reid(*enrol, "nowhere")
    assert (refused.returncode, "no scope admin" in refused.stderr) == (1, True)


def test_a_key_over_its_rate_waits_and_no_other_does(guarded: Guarded) -> None:
    slow = make_key(guarded.data, "slow", rate=0.5)
    assert guarded.http.get("/v1/model", headers=bearer(slow)).status_code == 200
    refused = guarded.http.get("/v1/model", headers=bearer(slow))
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert refused.headers["retry-after"] in {"1", "2"}
    assert guarded.ask("none", "GET", "/v1/model").status_code == 200


def test_a_rate_lets_a_seconds_worth_through_at_once_and_then_steadily() -> None:
    time = 100.0
    rates = TokenBucketLimiter(lambda: time)
    for seconds, requests in [(0.0, 8), (0.25, 2), (0.0, 0), (0.5, 4), (0.125, 1), (60.0, 8)]:
        time += seconds
        for _ in range(requests):
            rates.take("ann", 8.0)
        with pytest.raises(RateLimited) as refused:
            rates.take("ann", 8.0)
        assert refused.value.retry_after == 1


def audit_of(data: Path) -> list[tuple[str, str, int, str]]:
    with sqlite3.connect(data / DATABASE) as db:
        rows = db.execute("SELECT who, action, count, detail FROM audit ORDER BY id").fetchall()
    db.close()
    return rows


def test_a_key_that_may_search_reads_no_entry_by_its_number(guarded: Guarded) -> None:
    made = guarded.ask("admin", "POST", "/v1/galleries/lobby/entries", json={"entries": [VECTOR]})
    entry = f"/v1/galleries/lobby/entries/{made.json()['results'][0]['entry_id']}"
    for path in (entry, f"{entry}/image", "/v1/galleries/lobby/entries", "/v1/galleries/lobby/persons"):
        assert guarded.ask("search", "GET", path).status_code == 403
    assert guarded.ask("export", "GET", entry).status_code == 200
    before = len(audit_of(guarded.data))
    hits = guarded.ask("search", "POST", "/v1/galleries/lobby/search", json=VECTOR).json()["hits"]
    assert hits[0].keys() >= {"entry_id", "person_id", "camera_id", "captured_at", "attributes"}
    assert ("search-only", "search", 1, "") in audit_of(guarded.data)[before:]


def test_the_audit_says_who_made_and_revoked_which_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made_key(data, "ann", "--scope", "search")
    assert pan_serve("key", "create", "ann", "--data", str(data)).returncode == 1
    assert pan_serve("key", "revoke", "bob", "--data", str(data)).returncode == 1
    assert pan_serve("key", "revoke", "ann", "--data", str(data)).returncode == 0
    who = f"(command of {getpass.getuser()})"
    assert audit_of(data) == [(who, "create-key", 0, "ann"), (who, "revoke-key", 0, "ann")]


def test_refused_calls_are_in_the_audit_in_few_lines(launch: Launch, tmp_path: Path) -> None:
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
    assert server.stop() == 0  # what was not yet written is written now
    refused = {(who, detail): count for who, action, count, detail in audit_of(data) if action == "refused"}
    assert refused == {
        ("127.0.0.1", "no key"): 10,
        ("127.0.0.1", "unknown key"): 20,
        ("ann", "no scope admin"): 20,
        ("127.0.0.1", "key bob is revoked"): 10,
    }


def test_refused_calls_from_many_addresses_are_counted_as_one(tmp_path: Path) -> None:
    metrics = Metrics()
    database = Database(tmp_path / DATABASE, metrics)

    async def test() -> None:
        refusals = Refusals(database, metrics)
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


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:1"}, True),
        ({"Host": "[::1]:1"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Host": "192.168.0.7:80"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, True),
        ({"Host": "[::1]:1", "Origin": "http://[::1]:1"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, False),
        ({"Host": "localhost:1", "Origin": "http://attacker.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://attacker.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Host": "[nonsense"}, False),
        ({"Host": "attacker.example"}, False),
        ({"Host": "127.0.0.1.attacker.example"}, False),
        ({"Host": "1.2.3.4.5"}, False),
        ({"Host": "dead.beef"}, False),
        ({"Host": "localhost@attacker.example"}, False),
    ],
)
def test_without_keys_no_page_of_another_site_may_call(
    api: httpx.Client, headers: dict[str, str], allowed: bool
) -> None:
    answer = api.get("/v1/galleries", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert allowed or answer.json()["code"] == "foreign-page"


def test_without_keys_the_service_is_called_by_the_names_that_it_is_told(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, insecure_no_auth=True, allowed_hosts=("Pan.example",))
    with running(settings) as client:
        for host, status in [("pan.EXAMPLE:8000", 200), ("pan.example.", 200), ("other.example", 403)]:
            assert client.get("/v1/galleries", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("name", ["admin-key-file", "Admin-Key-File", "unknown", "127.0.0.1", "10.0.0.7"])
def test_no_key_has_a_name_that_stands_for_another_caller(tmp_path: Path, name: str) -> None:
    refused = pan_serve("key", "create", name, "--data", str(tmp_path))
    assert refused.returncode == 1
    assert "stands for another caller in the audit" in refused.stderr
    assert refused.stdout == ""


def test_with_a_key_the_service_may_be_called_by_any_name(guarded: Guarded) -> None:
    headers = {**bearer(guarded.keys["none"]), "Host": "pan.example", "Sec-Fetch-Site": "cross-site"}
    assert guarded.http.get("/v1/galleries", headers=headers).status_code == 200


def test_the_documentation_names_every_scope() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "api-keys.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*Scope}
