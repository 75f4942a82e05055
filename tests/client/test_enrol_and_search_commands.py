"""`pan-reid enrol` and `pan-reid search` with a folder of crops and a running server."""

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.common.served import Served
from pan_reid import Client
from tests.support.pictures import png, write_market
from tests.support.servers import pan_reid

Launch = Callable[..., Served]


def test_a_folder_is_enrolled_and_searched(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    folder = write_market(tmp_path / "market", persons=12, cameras=3)
    (folder / "0001_c1s1_000099_01.jpg").write_bytes(b"broken")
    enrolled = pan_reid("enrol", str(folder), "--gallery", "lobby", "--url", server.url, "--batch", "7")
    assert enrolled.returncode == 1  # a file failed
    assert "enrolled 37 of 38 crops in lobby" in enrolled.stderr
    assert "0001_c1s1_000099_01.jpg: these 6 bytes are not a" in enrolled.stderr
    with Client(server.url) as client:
        entries = list(client.entries("lobby"))
        assert len(list(client.persons("lobby"))) == 12
    assert {entry.camera_id for entry in entries} == {"c1", "c2", "c3"}
    distractors = [entry for entry in entries if entry.person_id is None]
    assert [entry.attributes for entry in distractors] == [{"file": "0000_c1s1_000000_01.jpg"}]
    query = folder / "0005_c2s1_000000_01.jpg"
    arguments = ("search", str(query), "--gallery", "lobby", "--url", server.url)
    found = json.loads(pan_reid(*arguments, "--top-k", "3", "--json").stdout)
    assert [hit["person_id"] for hit in found["hits"]] == ["0005"] * 3
    assert found["hits"][0]["attributes"] == {"file": query.name}
    table = pan_reid(*arguments, "--group-by-person").stdout
    assert "0005" in table
    assert query.name in table


def test_an_unreachable_server_a_missing_gallery_and_an_empty_folder_are_errors(launch: Launch, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(png(1))
    url = launch().url
    nowhere = pan_reid("search", str(picture), "--gallery", "x", "--url", "http://127.0.0.1:9")
    assert (nowhere.returncode, "is `pan-serve run` there?" in nowhere.stderr) == (1, True)
    missing = pan_reid("search", str(picture), "--gallery", "x", "--url", url)
    assert (missing.returncode, "there is no gallery x" in missing.stderr) == (1, True)
    (tmp_path / "empty").mkdir()
    empty = pan_reid("enrol", str(tmp_path / "empty"), "--gallery", "x", "--url", url)
    assert (empty.returncode, "has no images" in empty.stderr) == (1, True)
