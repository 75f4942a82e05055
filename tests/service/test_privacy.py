"""Personal data stays out of logs, and no file has any of it after an erasure."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.common.served import Served
from pan_reid import Client, Crop
from pan_reid.schemas import EntryInfo
from tests.support.pictures import png

Launch = Callable[..., Served]


def test_logs_are_json_lines_without_persons_and_the_audit_has_every_change(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby")
        client.enrol("lobby", [Crop(png(1), EntryInfo(person_id="jane-doe")), Crop(png(2))])
        client.search("lobby", png(1), png(2))
        client.erase_person("lobby", "jane-doe")
        client.delete_gallery("lobby")
    server.stop()
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [201, 201, 200, 200, 200]
    assert all(line["request_id"] for line in requests)
    assert "jane-doe" not in text
    with sqlite3.connect(tmp_path / "data" / "pan.sqlite3") as db:
        audit = db.execute("SELECT who, action, gallery, count FROM audit ORDER BY id").fetchall()
    db.close()
    assert audit == [
        ("127.0.0.1", "create-gallery", "lobby", 0),
        ("127.0.0.1", "enrol", "lobby", 2),
        ("127.0.0.1", "search", "lobby", 2),
        ("127.0.0.1", "erase-person", "lobby", 1),
        ("127.0.0.1", "delete-gallery", "lobby", 1),
    ]


def test_no_query_string_is_logged(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    secret = "jane-doe"
    with httpx.Client(base_url=server.url, timeout=30) as http:
        http.post("/v1/galleries", json={"name": "lobby"})
        raw = {"content": png(1), "headers": {"Content-Type": "image/png"}}
        answers = [
            http.post("/v1/galleries/lobby/entries", params={"person_id": secret}, **raw),  # type: ignore[arg-type]
            http.post("/v1/galleries/lobby/search", params={"persons": secret}, **raw),  # type: ignore[arg-type]
            http.get("/v1/galleries/lobby/entries", params={"person_id": secret}),
            http.delete("/v1/galleries/lobby/persons", params={"person_id": secret}),
            http.delete("/v1/galleries/lobby/persons", params={"person_id": secret}),
            http.get("/v1/galleries/lobby/entries", params={secret: "1"}),
            http.get(f"/{secret}", params={"person_id": secret}),
            http.get("/v1/galleries", params={"person_id": secret * 2000}),
            http.get("/healthz", params={"person_id": secret}),
        ]
        assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 404, 422, 404, 414, 200]
        with suppress(httpx.HTTPError):  # the server closes the connection during the upload
            http.post("/v1/galleries/lobby/search", params={"persons": secret}, content=iter([b"{", b"x" * 2**27]))
    server.stop()
    text = (tmp_path / "log").read_text()
    assert '"route":"/v1/galleries/{gallery}/persons"' in text
    assert secret not in text


def test_no_file_contains_an_erased_person(launch: Launch, tmp_path: Path) -> None:
    data = tmp_path / "data"

    def content() -> bytes:
        return b"".join(path.read_bytes() for path in data.iterdir())

    with Client(launch().url) as client:
        for gallery in ("lobby", "garage"):
            client.create_gallery(gallery)
            info = EntryInfo(person_id="jane-doe", camera_id="c1", attributes={"note": "a-red-coat"})
            client.enrol(gallery, [Crop(png(1), info)] * 40 + [Crop(png(2), EntryInfo(person_id="john-roe"))] * 40)
        jane, john = (client.embed([png(n)])[0].astype("<f4").tobytes() for n in (1, 2))
        assert all(part in content() for part in (jane, john, b"jane-doe", b"john-roe", b"a-red-coat"))
        assert client.erase_person("lobby", "jane-doe").overwritten
        assert jane in content()  # in the other gallery
        assert client.erase_person("garage", "jane-doe").overwritten
        assert not any(part in content() for part in (jane, b"jane-doe", b"a-red-coat"))
        assert john in content()
        assert client.delete_gallery("garage").overwritten
        with sqlite3.connect(data / "pan.sqlite3", isolation_level=None) as reader:  # a long read, such as a backup
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            receipt = client.erase_person("lobby", "john-roe")
            assert (receipt.entries, receipt.overwritten) == (40, False)
            assert john in content()
            reader.execute("COMMIT")
        reader.close()
        assert client.delete_gallery("lobby").overwritten
        assert not any(part in content() for part in (john, b"john-roe"))
