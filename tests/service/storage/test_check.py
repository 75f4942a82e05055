"""Damaged rows: the service excludes and reports them, and `pan-serve check --repair` repairs or deletes them."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from pan_reid import Client, Crop
from pan_reid.schemas import EntryInfo
from tests.support.bundles import DIM
from tests.support.pictures import png
from tests.support.servers import pan_serve

Launch = Callable[..., Served]

DAMAGE = {  # by entry id: the statement that damages it, the problem that `check` reports, and the repair
    2: ("UPDATE vectors SET vector = zeroblob(length(vector))", "length 0, not 1", "delete the entry"),
    3: ("UPDATE vectors SET vector = :triple", "length 3, not 1", "normalise the vector"),
    4: ("UPDATE vectors SET vector = x'0000807f'", "4 bytes, not 256", "delete the entry"),
    5: ("DELETE FROM vectors", "no vector", "delete the entry"),
    6: ("UPDATE entries SET captured_at = 4611686018427387904", "captured_at is not", "clamp captured_at to"),
    7: ("UPDATE entries SET attributes = '{\"coat\"'", "attributes are not a JSON object", "clear the attributes"),
    8: ("UPDATE entries SET attributes = '{\"a\": [1]}'", "attributes are not a JSON object", "clear the attributes"),
    9: ("UPDATE vectors SET vector = :nan", "length nan, not 1", "delete the entry"),
    10: (
        "UPDATE entries SET person_id = CAST(x'70fe30' AS TEXT)",
        "person_id is not UTF-8",
        "replace invalid UTF-8",
    ),
}


@contextmanager
def database(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / "pan.sqlite3")) as db, db:
        yield db


def damage(data: Path) -> None:
    with database(data) as db:
        blob = db.execute("SELECT vector FROM vectors WHERE entry_id = 3").fetchone()[0]
        values = {
            "triple": (3 * np.frombuffer(blob, "<f4")).astype("<f4").tobytes(),
            "nan": np.full(DIM, np.nan, "<f4").tobytes(),
        }
        for entry, (statement, _, _) in DAMAGE.items():
            which = "entry_id" if "vectors" in statement else "id"
            db.execute(f"{statement} WHERE {which} = {entry}", values)


@pytest.fixture
def data(launch: Launch, tmp_path: Path) -> Path:
    """The data folder of a stopped service: gallery lobby with entries 1 to 12 of p1 to p12; 2 to 10 are damaged."""
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby", keep_crops=True)
        client.enrol("lobby", [Crop(png(n), EntryInfo(person_id=f"p{n}")) for n in range(1, 13)])
    assert server.stop() == 0
    damage(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.usefixtures("data")
def test_damaged_entries_are_excluded_from_searches_and_can_be_deleted(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    with Client(server.url) as client, httpx.Client(base_url=server.url, timeout=30) as http:
        valid = set(range(1, 13)) - set(DAMAGE)
        assert {hit.entry_id for hit in client.search("lobby", png(1), top_k=100).hits or []} == valid
        assert [entry.entry_id for entry in client.entries("lobby")] == list(range(1, 13))
        shown = http.get("/v1/galleries/lobby").json()
        assert (shown["entries"], shown["set_aside"]) == (12, len(DAMAGE))
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["set_aside"]) == (200, 9)
        metrics = http.get("/metrics").text
        assert 'pan_gallery_entries{gallery="lobby"} 12.0' in metrics
        assert 'pan_gallery_entries_set_aside{gallery="lobby"} 9.0' in metrics
        log = next(json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if "set_aside" in line)
        assert (log["level"], log["gallery"], log["set_aside"]) == ("error", "lobby", 9)
        assert "2 (its vector has length 0, not 1)" in log["entries"]

        for entry in (2, 4, 5):
            asked = http.post("/v1/galleries/lobby/search", json={"entry_id": entry})
            assert (asked.status_code, asked.json()["code"]) == (409, "entry-damaged")
        assert http.get("/v1/galleries/lobby/entries/7").json()["attributes"] == {}
        file = http.post("/v1/galleries/lobby/export").content
        kind = {"Content-Type": "application/octet-stream"}
        assert http.post("/v1/galleries/hall/import", content=file, headers=kind).json()["entries"] == len(valid)

        client.delete_entry("lobby", 2)
        assert client.erase_person("lobby", "p5").entries == 1
        client.update_entry("lobby", 6, captured_at=None)
        client.enrol("lobby", [Crop(png(99))])
        shown = http.get("/v1/galleries/lobby").json()
        assert (shown["entries"], shown["set_aside"]) == (11, 7)
    assert server.stop() == 0
    with Client(launch().url) as client:  # the update of entry 6 repaired it
        assert client.gallery("lobby").set_aside == 6
        found = {hit.entry_id for hit in client.search("lobby", png(1), top_k=100).hits or []}
        assert {6, *valid} <= found


def test_check_reports_and_repairs_the_damage_of_a_stopped_service(data: Path, launch: Launch) -> None:
    server = launch()
    refused = pan_serve("check", "--data", str(data))
    assert (refused.returncode, "another pan-serve uses" in refused.stderr) == (1, True)
    assert server.stop() == 0
    before = (data / "pan.sqlite3").read_bytes()
    found = pan_serve("check", "--data", str(data))
    assert found.returncode == 1
    assert (data / "pan.sqlite3").read_bytes() == before
    for entry, (_, problem, remedy) in DAMAGE.items():
        line = next(line for line in found.stderr.splitlines() if f"entry {entry}:" in line)
        assert problem in line
        assert f"repair: {remedy}" in line
    repaired = pan_serve("check", "--data", str(data), "--repair", "--json")
    report = json.loads(repaired.stdout)
    assert (repaired.returncode, report["ok"], report["repaired"]) == (0, False, True), repaired.stderr
    assert {one["entry_id"] for one in report["galleries"][0]["damaged"]} == set(DAMAGE)
    again = pan_serve("check", "--data", str(data))
    assert (again.returncode, "no damage found" in again.stdout) == (0, True), again.stderr
    with database(data) as db:
        audit = db.execute("SELECT who, action, gallery, count FROM audit WHERE action LIKE 'repair%'").fetchall()
    assert audit == [
        ("(pan-serve check)", "repair", "lobby", 5),
        ("(pan-serve check)", "repair-delete", "lobby", 4),
    ]
    server = launch()
    with Client(server.url) as client:
        held = client.gallery("lobby")
        assert (held.entries, held.set_aside) == (8, 0)
        best = (client.search("lobby", png(3), top_k=1).hits or [])[0]  # its vector was repaired
        assert (best.entry_id, best.score) == (3, pytest.approx(1.0, abs=1e-5))
    assert httpx.get(f"{server.url}/readyz").json()["set_aside"] == 0


GALLERY_DAMAGE = {  # by name: the change that damages the row, the problem that is reported, and the repair
    "dim": ("dim = -3", "its dim is -3, but its vectors have dimension 64", "set dim to"),
    "large": ("dim = 9000000000000", "its dim is 9000000000000, but its vectors have dimension 64", "set dim to"),
    "near": ("dim = 65", "its dim is 65, but its vectors have dimension 64", "set dim to"),  # no entry may be lost
    "model": ("fingerprint = 'none'", "not a SHA-256", "delete the gallery"),
    "index": ("index_kind = 'ivf'", "index_kind is not one of auto, flat", "set index_kind to auto"),
    "time": ("created_at = 9223372036854775807", "created_at is not between", "clamp created_at to"),
    "retention": ("retention = -1", "retention is shorter", "remove the retention"),
    "name": ("name = CAST(x'6c6f62fe79' AS TEXT)", "name is not UTF-8", "rename it to gallery-"),
}


def test_damaged_galleries_are_not_served_and_are_repaired_or_deleted(launch: Launch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = launch()
    with Client(server.url) as client:
        for name in ("hall", *GALLERY_DAMAGE):
            client.create_gallery(name)
            client.enrol(name, [Crop(png(n)) for n in range(1, 4)])
    assert server.stop() == 0
    with database(data) as db:
        for name, (change, _, _) in GALLERY_DAMAGE.items():
            db.execute(f"UPDATE galleries SET {change} WHERE name = ?", (name,))
    server = launch()
    with Client(server.url) as client, httpx.Client(base_url=server.url, timeout=30) as http:
        assert [gallery.name for gallery in client.galleries()] == ["hall"]
        assert len(client.search("hall", png(1)).hits or []) == 3
        assert client.enrol("hall", [Crop(png(4))]).enrolled == 1
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["galleries_set_aside"]) == (200, len(GALLERY_DAMAGE))
        assert f"pan_galleries_set_aside {len(GALLERY_DAMAGE)}.0" in http.get("/metrics").text
        for name, (_, problem, _) in GALLERY_DAMAGE.items():
            missing = http.get(f"/v1/galleries/{name}")
            assert (missing.status_code, problem in missing.json()["detail"]) == (404, name != "name")
        assert http.post("/v1/galleries", json={"name": "dim"}).status_code == 409
    assert server.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if "not served" in line]
    found = pan_serve("check", "--data", str(data))
    assert found.returncode == 1
    for _, problem, remedy in GALLERY_DAMAGE.values():
        assert [line["level"] for line in lines if problem in line["damage"]] == ["error"]
        assert any(problem in line and f"repair: {remedy}" in line for line in found.stderr.splitlines()), found.stderr
    assert pan_serve("check", "--data", str(data), "--repair").returncode == 0
    assert pan_serve("check", "--data", str(data)).returncode == 0
    with database(data) as db:
        audit = db.execute("SELECT action, gallery, count FROM audit WHERE action LIKE 'repair-delete%'").fetchall()
    assert sorted(audit) == [("repair-delete-gallery", name, 3) for name in ("model",)]
    with Client(launch().url) as client:
        held = {gallery.name: gallery.entries for gallery in client.galleries()}
        renamed = {name for name in held if name.startswith("gallery-")}
        assert held.keys() - renamed == {"hall", "index", "time", "retention", "dim", "large", "near"}
        assert (held["hall"], len(renamed), sum(held.values())) == (4, 1, 25)
        assert len(client.search("near", png(1)).hits or []) == 3


def test_check_finds_unreadable_crops_and_orphaned_rows(data: Path) -> None:
    pan_serve("check", "--data", str(data), "--repair")
    with database(data) as db:
        db.execute("UPDATE crops SET image = x'00ff00ff' WHERE entry_id = 1")
        db.execute("DELETE FROM entries WHERE id = 10")  # this connection does not cascade
    found = pan_serve("check", "--data", str(data), "--json")
    report = json.loads(found.stdout)
    assert (found.returncode, report["unreadable_pictures"]) == (1, [1])
    assert {row["table"] for row in report["orphaned_rows"]} == {"vectors", "crops"}
    assert pan_serve("check", "--data", str(data), "--repair").returncode == 0
    with database(data) as db:
        assert db.execute("SELECT entry_id FROM crops ORDER BY 1").fetchall() == [(3,), (6,), (7,), (8,), (11,), (12,)]
        assert db.execute("SELECT count(*) FROM vectors").fetchone() == (7,)
        actions = [row[0] for row in db.execute("SELECT action FROM audit WHERE action LIKE 'repair-delete-%'")]
    assert sorted(actions) == ["repair-delete-crops", "repair-delete-crops", "repair-delete-vectors"]


@pytest.mark.parametrize("broken", ["page", "junk", "newer"])
def test_a_broken_database_is_reported_with_a_remedy_and_left_unchanged(data: Path, broken: str) -> None:
    path = data / "pan.sqlite3"
    whole = bytearray(path.read_bytes())
    size = int.from_bytes(whole[16:18])
    if broken == "page":
        whole[size : size + 2000] = b"\xff" * 2000
    elif broken == "newer":
        whole[60:64] = (1000).to_bytes(4)
    path.write_bytes(b"not a database" * 999 if broken == "junk" else whole)
    before = path.read_bytes()
    for options in ((), ("--repair",), ("--json",)):
        found = pan_serve("check", "--data", str(data), *options)
        assert found.returncode == 1
        assert "Traceback" not in found.stderr
        said = found.stdout if options == ("--json",) else found.stderr
        assert ("schema version 1000" if broken == "newer" else "restore an earlier backup") in said
    assert path.read_bytes() == before


def test_check_refuses_a_folder_without_a_database_and_does_not_create_it(tmp_path: Path) -> None:
    refused = pan_serve("check", "--data", str(tmp_path / "typo"))
    assert (refused.returncode, "there is no pan.sqlite3 in" in refused.stderr) == (1, True)
    assert not (tmp_path / "typo").exists()


def test_backup_and_restore_copy_and_report_damaged_entries(data: Path, tmp_path: Path, launch: Launch) -> None:
    copy = tmp_path / "copy"
    made = pan_serve("backup", str(copy), "--data", str(data))
    back = pan_serve("restore", str(copy), "--data", str(data), "--force")
    for done in (made, back):
        assert done.returncode == 0, done.stderr
        assert "gallery lobby has 9 damaged entries" in done.stderr
        assert "pan-serve check" in done.stderr
    with Client(launch().url) as client:
        assert client.gallery("lobby").set_aside == 9
