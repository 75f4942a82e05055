"""Export and import of galleries: equal entries and search results, completely or not at all."""

import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from pan_reid import ApiError, Client, Crop
from pan_reid.schemas import EntryInfo
from service.core.settings import Settings
from tests.support.bundles import DIM, write_bundle
from tests.support.pictures import png
from tests.support.servers import pan_reid, running

_FILE = {"Content-Type": "application/octet-stream"}


def filled(client: Client, name: str, count: int = 1203) -> None:
    """More than two batches; some entries have all metadata."""
    client.create_gallery(name, "a test", retention_days=30)
    vectors = np.random.default_rng(0).normal(size=(count, DIM))
    rows = [{"vector": vector.tolist(), "person_id": f"p{n % 7}"} for n, vector in enumerate(vectors)]
    rows[3] |= {
        "camera_id": "c1",
        "captured_at": "2100-01-31T12:00:00.000001+02:00",
        "attributes": {"é": 1.5, "b": None, "c": "\n"},
    }
    with httpx.Client(base_url=str(client._http.base_url)) as http:
        for start in range(0, count, 250):
            answer = http.post(f"/v1/galleries/{name}/entries", json={"entries": rows[start : start + 250]})
            assert answer.status_code == 201


def exported(client: Client, name: str) -> bytes:
    stream = BytesIO()
    client.export_gallery(name, stream.write)
    return stream.getvalue()


def sealed(lines: list[bytes]) -> bytes:
    """Lines with the footer that their format defines."""
    text = b"".join(line + b"\n" for line in lines)
    return text + json.dumps({"lines": len(lines), "sha256": hashlib.sha256(text).hexdigest()}).encode() + b"\n"


def test_an_exported_and_imported_gallery_gives_equal_results(
    launch: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    file, server = tmp_path / "lobby.jsonl", launch()
    with running(Settings(bundle=bundle, data=tmp_path / "elsewhere")) as http, Client(str(http.base_url)) as source:
        filled(source, "lobby")
        source.delete_entry("lobby", 5)
        made = pan_reid("export", "lobby", str(file), "--url", str(http.base_url))
        assert (made.returncode, file.stat().st_mode & 0o077) == (0, 0), made.stderr
        before, hits = list(source.entries("lobby")), source.search("lobby", png(1), top_k=50).hits
    taken = pan_reid("import", "hall", str(file), "--url", server.url)
    assert (taken.returncode, "created gallery hall with 1,202 entries" in taken.stdout) == (0, True), taken.stderr
    server.stop()
    with Client(launch().url) as client:
        held = client.gallery("hall")
        assert (held.purpose, held.retention_days, held.searchable) == ("a test", 30, True)
        after = list(client.entries("hall"))
        numbers = {new.entry_id: old.entry_id for new, old in zip(after, before, strict=True)}
        assert [one.model_copy(update={"entry_id": numbers[one.entry_id]}) for one in after] == before
        found = client.search("hall", png(1), top_k=50).hits or []
        assert [one.model_copy(update={"entry_id": numbers[one.entry_id]}) for one in found] == hits
    with sqlite3.connect(tmp_path / "data" / "pan.sqlite3") as db:
        assert ("import", "hall", 1202) in db.execute("SELECT action, gallery, count FROM audit").fetchall()
    db.close()
    with sqlite3.connect(tmp_path / "elsewhere" / "pan.sqlite3") as db:
        assert ("export", "lobby", 1202) in db.execute("SELECT action, gallery, count FROM audit").fetchall()
    db.close()


def test_an_incomplete_or_invalid_import_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path)) as http, Client(str(http.base_url)) as client:
        filled(client, "lobby", 700)
        data = exported(client, "lobby")
        lines = data.splitlines()[:-1]
        assert orjson.loads(sealed(lines).splitlines()[-1]) == orjson.loads(data.splitlines()[-1])
        first, entry = orjson.loads(lines[0]), orjson.loads(lines[600])

        def with_entry(**changed: Any) -> bytes:
            return sealed([*lines[:600], orjson.dumps({**entry, **changed}), *lines[601:]])

        zero = base64.b64encode(np.zeros(DIM, "<f4").tobytes()).decode()
        denormal = base64.b64encode(np.full(DIM, 1e-45, "<f4").tobytes()).decode()
        wrong = {
            "cut off": (data[:-10], 422, "has no footer"),
            "a line lost": (b"\n".join([*lines[:300], *data.splitlines()[301:]]) + b"\n", 422, "checksum differs"),
            "something after": (data + lines[1] + b"\n", 422, "text after the footer"),
            "empty": (b"", 422, "ends after 0 lines"),
            "a lax version": (sealed([orjson.dumps({**first, "version": True}), *lines[1:]]), 422, "version"),
            "a lax dim": (sealed([orjson.dumps({**first, "dim": float(first["dim"])}), *lines[1:]]), 422, "dim"),
            "no json": (b"PK\x03\x04\n", 422, "not JSON"),
            "another format": (b'{"format": "else"}\n', 422, "not an exported gallery that this release can read"),
            "endless": (b"x" * 9_000_000, 422, "more than 8,388,608 bytes"),
            "another model": (
                sealed([orjson.dumps({**first, "fingerprint": "f" * 64}), *lines[1:]]),
                409,
                "with the bundle of",
            ),
            "zero": (with_entry(vector=zero), 422, "line 601: the vector cannot be used"),
            "denormal": (with_entry(vector=denormal), 422, "line 601: the vector cannot be used"),
            "short": (with_entry(vector=zero[:16]), 422, "line 601: the vector has shape"),
            "unknown": (with_entry(picture="x"), 422, "picture"),
            "an image where none is kept": (with_entry(image="x"), 422, "by its first line the gallery keeps none"),
            "no time zone": (with_entry(created_at="2024-01-01T00:00:00"), 422, "created_at"),
        }
        for name, (body, status, says) in wrong.items():
            answer = http.post("/v1/galleries/hall/import", content=body, headers=_FILE)
            assert (answer.status_code, says in answer.text) == (status, True), (name, answer.text)
            assert http.get("/v1/galleries/hall").status_code == 404, name
        taken = http.post("/v1/galleries/lobby/import", content=data, headers=_FILE)
        assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
        assert http.post("/v1/galleries/hall/import", content=data).status_code == 415
        assert http.post("/v1/galleries/hall/import", content=data, headers=_FILE).status_code == 201
    with sqlite3.connect(tmp_path / "pan.sqlite3") as db:
        assert [row[0] for row in db.execute("SELECT name FROM galleries ORDER BY name")] == ["hall", "lobby"]
        assert db.execute("SELECT count(*) FROM vectors").fetchone() == (1400,)
    db.close()


def test_an_import_may_exceed_the_body_budget_and_is_dropped_after_a_kill(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    server = launch("--max-body-mib", "1", "--max-bodies-mib", "1")
    with Client(server.url) as client:
        filled(client, "lobby", 200)
        lines = exported(client, "lobby").splitlines()[:-1]
        large = sealed([lines[0], *lines[1:] * 30])
        assert len(large) > 2 * 2**20
        assert client.import_gallery("hall", BytesIO(large)).entries == 6000

    def half() -> Any:
        yield large[: len(large) // 2]
        server.stop(9)
        yield large[len(large) // 2 :]

    with pytest.raises(httpx.TransportError):
        httpx.post(f"{server.url}/v1/galleries/never/import", content=half(), headers=_FILE)
    server = launch()
    with Client(server.url) as client:
        assert {one.name: one.entries for one in client.galleries()} == {"hall": 6000, "lobby": 200}
    server.stop()
    with sqlite3.connect(tmp_path / "data" / "pan.sqlite3") as db:
        assert db.execute("SELECT count(*) FROM galleries").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM vectors").fetchone() == (6200,)
    db.close()


def test_kept_crops_are_imported_and_encoded_again(bundle: Path, tmp_path: Path) -> None:
    keeps = {"name": "lobby", "keep_crops": True}
    crops = [Crop(png(n), EntryInfo(person_id=f"p{n}")) for n in range(3)]
    with running(Settings(bundle=bundle, data=tmp_path / "a")) as http, Client(str(http.base_url)) as source:
        http.post("/v1/galleries", json=keeps)
        source.enrol("lobby", crops[:2])
        http.patch("/v1/galleries/lobby", json={"keep_crops": False})
        http.patch("/v1/galleries/lobby", json={"keep_crops": True})
        source.enrol("lobby", crops)  # the first two entries have no image
        lines = exported(source, "lobby").splitlines()[:-1]
        first, *entries = [orjson.loads(line) for line in lines]
        assert (first["version"], first["keep_crops"]) == (2, True)
        assert ["image" in entry for entry in entries] == [False, False, True, True, True]
        kept = [http.get(f"/v1/galleries/lobby/entries/{n}/image").content for n in (3, 4, 5)]
        assert [base64.b64decode(entry["image"]) for entry in entries[2:]] == kept
    comment = base64.b64encode(kept[0] + b"<script>alert(1)</script>").decode()
    changed = sealed([*lines[:3], orjson.dumps({**entries[2], "image": comment}), *lines[4:]])
    with running(Settings(bundle=bundle, data=tmp_path / "b")) as http, Client(str(http.base_url)) as there:
        assert there.import_gallery("hall", BytesIO(changed)).keep_crops
        found = [http.get(f"/v1/galleries/hall/entries/{entry.entry_id}/image") for entry in there.entries("hall")]
        assert [one.status_code for one in found] == [404, 404, 200, 200, 200]
        for one, original in zip(found[2:], kept, strict=True):
            assert b"script" not in one.content
            pixels, before = (np.asarray(Image.open(BytesIO(data)), np.float64) for data in (one.content, original))
            assert np.abs(pixels - before).mean() < 1  # of 255 levels
        for damaged in ("x", base64.b64encode(b"GIF89a").decode(), base64.b64encode(kept[0][:500]).decode()):
            wrong = sealed([*lines[:3], orjson.dumps({**entries[2], "image": damaged})])
            answer = http.post("/v1/galleries/never/import", content=wrong, headers=_FILE)
            assert (answer.status_code, answer.json()["detail"][:7]) == (422, "line 4:")
        assert [one.name for one in there.galleries()] == ["hall"]


def test_export_files_of_version_1_are_imported(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path)) as http, Client(str(http.base_url)) as client:
        vector = np.eye(DIM, dtype="<f4")[3]
        first = {
            **{"format": "pan-gallery", "version": 1, "fingerprint": client.model().fingerprint, "dim": DIM},
            **{"purpose": "of old", "retention_days": None},
        }
        entry: dict[str, object] = {
            **{"person_id": "a", "camera_id": None, "captured_at": None, "attributes": {}},
            **{"created_at": "2024-01-01T00:00:00Z", "vector": base64.b64encode(vector.tobytes()).decode()},
        }
        made = client.import_gallery("old", BytesIO(sealed([orjson.dumps(first), orjson.dumps(entry)])))
        assert (made.purpose, made.entries, made.keep_crops) == ("of old", 1, False)
        assert [hit.person_id for hit in client.search_vector("old", vector).hits or []] == ["a"]


def test_an_import_of_another_model_is_refused_with_a_remedy(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path / "a")) as http, Client(str(http.base_url)) as source:
        source.create_gallery("lobby")
        source.enrol("lobby", [Crop(png(1), EntryInfo(person_id="a"))])
        data = exported(source, "lobby")
    other = write_bundle(tmp_path / "other", seed=1)
    with running(Settings(bundle=other, data=tmp_path / "b")) as http, Client(str(http.base_url)) as there:
        with pytest.raises(ApiError, match="start the service with the bundle of the export") as refused:
            there.import_gallery("lobby", BytesIO(data))
        assert refused.value.problem_code == "model-mismatch"
        assert http.get("/v1/galleries").json() == {"galleries": []}


def test_an_export_that_fails_leaves_no_file(bundle: Path, tmp_path: Path) -> None:
    nowhere = pan_reid("export", "lobby", str(tmp_path / "file"), "--url", "http://127.0.0.1:9")
    assert (nowhere.returncode, "is `pan-serve run` there?" in nowhere.stderr) == (1, True)
    with running(Settings(bundle=bundle, data=tmp_path / "data")) as http:
        missing = pan_reid("export", "lobby", str(tmp_path / "file"), "--url", str(http.base_url))
    assert (missing.returncode, "there is no gallery lobby" in missing.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
