"""Times at the ends of the calendar and out of range: in every call, and in a database of an earlier release."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.common.served import Served
from pan_reid.schemas.times import parse_time
from service.core.clock import EARLIEST, LATEST, from_micros, to_micros
from service.storage.data_dir import DATABASE, prepare_data_dir
from service.storage.migrations import MIGRATIONS
from tests.support.bundles import DIM
from tests.support.pictures import png

VECTOR = [1.0] + [0.0] * (DIM - 1)
KEPT = {
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
    "0001-01-01T14:00:00+14:00": "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999999Z",
    "9999-12-31T11:59:59-12:00": "9999-12-31T23:59:59Z",
    "2024-02-29T12:00:00.1234567+02:00": "2024-02-29T10:00:00.123456Z",
    "1969-12-31t23:59:59.5z": "1969-12-31T23:59:59.500000Z",
}
REFUSED: list[Any] = [
    "9999-12-31T23:59:59-12:00",
    "0001-01-01T00:00:00+14:00",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "2024-02-30T00:00:00Z",
    "2024-05-01T08:00:60Z",
    "2024-05-01T08:00:00",
    "2024-05-01",
    "2024-W01-1T00:00:00Z",
    "20240501T080000Z",
    "1714550400",
    "²024-05-01T08:00:00Z",
    1714550400,
    -62135596800,
    1.5,
    True,
    [],
]


def entries(api: httpx.Client, gallery: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/v1/galleries/{gallery}/entries").json()["entries"]
    return found


@pytest.mark.parametrize(("sent", "shown"), KEPT.items())
def test_an_accepted_time_is_returned_by_every_call(api: httpx.Client, gallery: str, sent: str, shown: str) -> None:
    path = f"/v1/galleries/{gallery}"
    entry = {"vector": VECTOR, "captured_at": sent}
    assert api.post(f"{path}/entries", json={"entries": [entry]}).status_code == 201
    lines = {"content": json.dumps(entry), "headers": {"Content-Type": "application/x-ndjson"}}
    assert "entry_id" in api.post(f"{path}/entries/stream", **lines).text  # type: ignore[arg-type]
    fields = {"metadata": json.dumps([{"captured_at": sent}])}
    assert api.post(f"{path}/entries", data=fields, files={"images": png(1)}).status_code == 201
    raw = api.post(
        f"{path}/entries", params={"captured_at": sent}, content=png(1), headers={"Content-Type": "image/png"}
    )
    assert raw.status_code == 201, raw.text
    assert api.post(f"{path}/entries", json={"entries": [{"vector": VECTOR}]}).status_code == 201
    last = entries(api, gallery)[-1]["entry_id"]
    assert api.patch(f"{path}/entries/{last}", json={"captured_at": sent}).json()["captured_at"] == shown
    assert [one["captured_at"] for one in entries(api, gallery)] == [shown] * 5
    hits = api.post(f"{path}/search", json={"vector": VECTOR, "captured_from": sent}).json()["hits"]
    assert [hit["captured_at"] for hit in hits] == [shown] * 5
    exported = api.post(f"{path}/export")
    copy = {"content": exported.content, "headers": {"Content-Type": "application/octet-stream"}}
    assert api.post(f"{path}copy/import", **copy).json()["entries"] == 5  # type: ignore[arg-type]
    assert [one["captured_at"] for one in entries(api, f"{gallery}copy")] == [shown] * 5


@pytest.mark.parametrize("sent", REFUSED)
def test_a_time_out_of_range_is_refused_by_every_call(api: httpx.Client, gallery: str, sent: Any) -> None:
    path = f"/v1/galleries/{gallery}"
    assert api.post(f"{path}/entries", json={"entries": [{"vector": VECTOR}]}).status_code == 201
    before = entries(api, gallery)
    entry = {"vector": VECTOR, "captured_at": sent}
    text = sent if isinstance(sent, str) else json.dumps(sent)
    refused = [
        api.post(f"{path}/entries", json={"entries": [entry]}),
        api.post(f"{path}/entries", data={"metadata": json.dumps([{"captured_at": sent}])}, files={"images": png(1)}),
        api.post(
            f"{path}/entries", params={"captured_at": text}, content=png(1), headers={"Content-Type": "image/png"}
        ),
        api.patch(f"{path}/entries/{before[0]['entry_id']}", json={"captured_at": sent}),
        api.post(f"{path}/search", json={"vector": VECTOR, "captured_from": sent}),
        api.post(f"{path}/search", data={"captured_until": text}, files={"images": png(1)}),
    ]
    assert [answer.status_code for answer in refused] == [422] * len(refused)
    assert all("captured_" in answer.json()["detail"] for answer in refused)
    lines = {"content": json.dumps(entry), "headers": {"Content-Type": "application/x-ndjson"}}
    result = api.post(f"{path}/entries/stream", **lines).text.splitlines()  # type: ignore[arg-type]
    assert json.loads(result[0])["error"]["code"] == "invalid-request"
    head, known, end = api.post(f"{path}/export").text.splitlines()
    for member in ("captured_at", "created_at"):
        line = json.dumps({**json.loads(known), member: sent})
        body = {"content": "\n".join([head, line, end]), "headers": {"Content-Type": "application/octet-stream"}}
        answer = api.post(f"{path}copy/import", **body)  # type: ignore[arg-type]
        assert (answer.status_code, member in answer.json()["detail"]) == (422, True), answer.text
    assert entries(api, gallery) == before


def test_invalid_times_of_earlier_releases_are_repaired_at_startup(
    launch: Callable[..., Served], tmp_path: Path
) -> None:
    far = 10**18
    prepare_data_dir(tmp_path / "data")
    with sqlite3.connect(tmp_path / "data" / DATABASE) as db:
        db.executescript(f"{';'.join(MIGRATIONS[:6])}; PRAGMA user_version = 6")
        db.execute(f"INSERT INTO galleries VALUES (1, 'old', '', 'auto', '{'0' * 64}', 1, 0, 0, 0)")
        rows = [(1, far, 0), (2, -far, 0), (3, None, far), (4, None, -far), (5, 86400_000_000, 86400_000_000)]
        db.executemany(
            "INSERT INTO entries (id, gallery_id, captured_at, attributes, created_at) VALUES (?, 1, ?, '{}', ?)", rows
        )
        db.execute("UPDATE galleries SET retention = NULL")
        db.execute(f"INSERT INTO galleries VALUES (2, 'hasty', '', 'auto', '{'0' * 64}', 1, 0, 0, 0)")
    db.close()
    server = launch()
    with httpx.Client(base_url=server.url) as http:
        found = http.get("/v1/galleries/old/entries").json()["entries"]
        assert [one["captured_at"] for one in found] == [
            "9999-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00Z",
            None,
            None,
            "1970-01-02T00:00:00Z",
        ]
        assert "2026" <= found[2]["created_at"] < "9999"  # it would never have expired
        assert found[3]["created_at"] == "0001-01-01T00:00:00Z"
        assert http.get("/v1/galleries/hasty").json()["retention_days"] == 0.001
        with sqlite3.connect(tmp_path / "data" / DATABASE) as db:  # with an invalid time in the database, no call fails
            db.execute("UPDATE entries SET captured_at = ?, created_at = ? WHERE id = 5", (far, -far))
        db.close()
        shown = http.get("/v1/galleries/old/entries/5").json()
        assert (shown["captured_at"][:4], shown["created_at"][:4]) == ("9999", "0001")
    assert server.stop() == 0


@pytest.mark.parametrize("at", [EARLIEST, -1, 0, 1, LATEST])
def test_microseconds_survive_the_conversion_to_a_time(at: int) -> None:
    assert to_micros(from_micros(at)) == to_micros(parse_time(from_micros(at).isoformat())) == at
    assert from_micros(LATEST + 1) == from_micros(LATEST)
    assert from_micros(EARLIEST - 1) == from_micros(EARLIEST)
