"""API keys: creation, use, expiry and revocation, with the real commands and a running server."""

import getpass
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from pan_reid import ApiError, Client, Crop
from pan_reid.schemas import EntryInfo
from tests.service.auth.conftest import Guarded
from tests.support.keys import audit_of, bearer, make_key
from tests.support.pictures import png, write_market
from tests.support.servers import pan_reid, pan_serve

Launch = Callable[..., Served]


def create_key_by_command(data: Path, name: str, *options: str) -> str:
    made = pan_serve("key", "create", name, "--data", str(data), *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_no_secret_is_on_the_disk_or_in_the_list_of_keys(guarded: Guarded) -> None:
    everything = b"".join(path.read_bytes() for path in guarded.data.iterdir())
    assert b"search-only" in everything
    listed = pan_serve("key", "list", "--data", str(guarded.data)).stdout
    assert "search-only" in listed
    for key in guarded.keys.values():
        secret = key.split("_", 2)[2]
        assert len(secret) == 43  # 256 bits in base64
        assert secret.encode() not in everything
        assert secret not in listed


def test_the_first_key_takes_effect_at_once_and_so_does_its_revocation(launch: Launch, tmp_path: Path) -> None:
    server, data = launch(), tmp_path / "data"
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["level"] for line in log if "there is no API key" in line["message"]] == ["warning"]
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/v1/model").status_code == 200
        key = create_key_by_command(data, "ann", "--scope", "search")
        assert http.get("/v1/model").status_code == 401
        assert http.get("/v1/model", headers=bearer(key)).status_code == 200
        assert "revoked ann" in pan_serve("key", "revoke", "ann", "--data", str(data)).stdout
        assert "revoked" in http.get("/v1/model", headers=bearer(key)).json()["detail"]
        taken = pan_serve("key", "create", "ann", "--data", str(data))
        assert (taken.returncode, "choose another name" in taken.stderr, taken.stdout) == (1, True, "")
    server.stop()
    assert httpx.get(f"{launch().url}/v1/model").status_code == 401  # no valid key is left, but keys are still required


def test_an_expired_key_is_rejected(launch: Launch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = create_key_by_command(data, "guest", "--expires", "12h")
    url = launch().url
    assert httpx.get(f"{url}/v1/model", headers=bearer(key)).status_code == 200
    with sqlite3.connect(data / "pan.sqlite3") as db:  # as if 13 hours had passed
        db.execute("UPDATE keys SET expires_at = expires_at - 13 * 3600 * 1000000")
    db.close()
    answer = httpx.get(f"{url}/v1/model", headers=bearer(key))
    assert (answer.status_code, "expired" in answer.json()["detail"]) == (401, True)
    assert "expired" in pan_serve("key", "list", "--data", str(data)).stdout


@pytest.mark.parametrize(
    "arguments",
    [("create", "a/b"), ("create", "a", "--scope", "all"), ("create", "a", "--expires", "soon"), ("revoke", "nobody")],
)
def test_the_key_commands_name_the_invalid_argument(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    make_key(tmp_path, "ann")
    done = pan_serve("key", *arguments, "--data", str(tmp_path))
    assert done.returncode != 0
    assert arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_keys_the_service_listens_on_loopback_only(launch: Launch, bundle: Path, tmp_path: Path) -> None:
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


def test_the_administrator_key_is_read_from_a_file(
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


def test_the_audit_records_creation_and_revocation_of_keys(tmp_path: Path) -> None:
    data = tmp_path / "data"
    create_key_by_command(data, "ann", "--scope", "search")
    assert pan_serve("key", "create", "ann", "--data", str(data)).returncode == 1
    assert pan_serve("key", "revoke", "bob", "--data", str(data)).returncode == 1
    assert pan_serve("key", "revoke", "ann", "--data", str(data)).returncode == 0
    who = f"(command of {getpass.getuser()})"
    assert audit_of(data) == [(who, "create-key", 0, "ann"), (who, "revoke-key", 0, "ann")]


@pytest.mark.parametrize("name", ["admin-key-file", "Admin-Key-File", "unknown", "127.0.0.1", "10.0.0.7"])
def test_reserved_names_of_keys_are_refused(tmp_path: Path, name: str) -> None:
    refused = pan_serve("key", "create", name, "--data", str(tmp_path))
    assert refused.returncode == 1
    assert "denotes callers without a key" in refused.stderr
    assert refused.stdout == ""
