"""Error messages of the commands: each names the problem and the remedy, and changes nothing."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from service.storage.migrations import MIGRATIONS, SCHEMA_VERSION
from tests.support.bundles import write_bundle
from tests.support.pictures import png
from tests.support.servers import pan_reid, pan_serve

CASES = {
    "a level of logs": (
        ["run", "--bundle", "{tmp}", "--data", "{tmp}/d", "--log-level", "loud"],
        "'loud' is not",
    ),
    "no folder": (
        ["key", "list", "--data", "{tmp}/typo"],
        "typo; set --data to the data folder of the service",
    ),
    "no folder to revoke in": (["key", "revoke", "a", "--data", "{tmp}/typo"], "there is no pan.sqlite3 in "),
    "ages": (["key", "create", "a", "--data", "{tmp}/d", "--expires", "100000w"], "100000w is more than 100 years"),
    "no duration": (["key", "create", "a", "--data", "{tmp}/d", "--expires", "soon"], "soon is not a duration"),
    "no scheme": (
        ["search", "{tmp}/a.png", "--gallery", "g", "--url", "127.0.0.1:8105"],
        "127.0.0.1:8105 is not the address of a service; give one like http://127.0.0.1:8105",
    ),
    "another scheme": (["search", "{tmp}/a.png", "--gallery", "g", "--url", "ftp://h"], "like http://127.0.0.1:8000"),
    "a port": (["search", "{tmp}/a.png", "--gallery", "g", "--url", "http://h:x"], "is not the address of a service"),
    "no time": (["search", "{tmp}/a.png", "--gallery", "g", "--from", "may"], "may is not a time; give one like"),
    "no zone": (
        ["search", "{tmp}/a.png", "--gallery", "g", "--until", "2024-05-01T08:00"],
        "2024-05-01T08:00 has no time zone; for UTC give 2024-05-01T08:00Z",
    ),
    "a name": (["search", "{tmp}/a.png", "--gallery", "my hall"], "no gallery is named 'my hall': a name has 1 to 64"),
    "a name of a path": (["re-embed", "../x"], "no gallery is named '../x': a name has 1 to 64"),
    "a file that is there": (["export", "g", "{tmp}/a.png"], "a.png exists; give another name, or --force"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_command_with_an_invalid_argument_says_why_and_does_nothing(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    arguments, said = CASES[case]
    command = pan_reid if arguments[0] in ("search", "export") else pan_serve
    done = command(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode in {1, 2}
    words = " ".join(done.stderr.replace("│", " ").split())
    assert said in words, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == png(1)


def test_help_shows_text_in_brackets() -> None:
    assert "the extra [otel]" in " ".join(pan_serve("run", "--help").stdout.replace("│", " ").split())


def test_an_export_replaces_a_file_only_with_force_and_a_search_accepts_a_date(
    launch: Callable[..., Served], tmp_path: Path
) -> None:
    url = launch().url
    file, picture = tmp_path / "g.jsonl", tmp_path / "a.png"
    file.write_text("mine")
    picture.write_bytes(png(1))
    with httpx.Client(base_url=url) as http:
        http.post("/v1/galleries", json={"name": "g"})
        for day in ("2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z"):
            told = {"images": ("a", png(1))}
            http.post("/v1/galleries/g/entries", files=told, data={"captured_at": day})
    assert pan_reid("export", "g", str(file), "--url", url).returncode == 2
    assert file.read_text() == "mine"
    assert pan_reid("export", "g", str(file), "--url", url, "--force").returncode == 0
    assert len(file.read_text().splitlines()) == 4
    found = pan_reid("search", str(picture), "--gallery", "g", "--url", url, "--from", "2024-01-01", "--json")
    assert [hit["entry_id"] for hit in json.loads(found.stdout)["hits"]] == [2]


def test_a_command_upgrades_no_database_of_an_earlier_release(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    path = data / "pan.sqlite3"
    earlier = SCHEMA_VERSION - 1
    with sqlite3.connect(path) as db:
        db.executescript(f"{';'.join(MIGRATIONS[:earlier])}; PRAGMA user_version = {earlier};")
    db.close()
    path.chmod(0o600)
    for command in (["key", "list"], ["key", "create", "a"], ["key", "revoke", "a"], ["vacuum"]):
        done = pan_serve(*command, "--data", str(data))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"schema version {earlier}" in done.stderr
        assert "start the service of this release once" in done.stderr
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (earlier,)
    db.close()


def test_a_start_says_which_galleries_the_new_model_cannot_search(
    launch: Callable[..., Served], tmp_path: Path
) -> None:
    server = launch()
    httpx.post(f"{server.url}/v1/galleries", json={"name": "old-hall"}).raise_for_status()
    assert server.stop() == 0
    server = launch(bundle=write_bundle(tmp_path / "another", seed=1))
    httpx.post(f"{server.url}/v1/galleries", json={"name": "new-hall"}).raise_for_status()
    assert server.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    (told,) = [line for line in lines if "of another model" in line["message"]]
    assert (told["level"], told["names"]) == ("warning", ["old-hall"])
    assert "pan-serve re-embed" in told["message"]
