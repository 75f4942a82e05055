"""Entries without a kept crop: refused, or dropped with a receipt."""

import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from pan_reid import ApiError, Client
from service.core.settings import Settings
from tests.service.workers.models import PEOPLE, until_done
from tests.support.bundles import DIM
from tests.support.servers import running


def test_entries_without_a_crop_are_refused_or_dropped_with_a_receipt(bundle: Path, other: Path, data: Path) -> None:
    bare = np.eye(DIM, dtype="<f4")[:3]
    with running(Settings(bundle=bundle, data=data)) as http:
        entries = [{"vector": vector.tolist(), "person_id": "bare"} for vector in bare]
        assert http.post("/v1/galleries/g/entries", json={"entries": entries}).status_code == 201
    with running(Settings(bundle=other, data=data)) as http, Client(str(http.base_url)) as client:
        with pytest.raises(ApiError, match=r"3 of 33 entries .*--drop-without-crop") as refused:
            client.re_embed("g")
        assert (refused.value.status, refused.value.problem_code) == (409, "crops-missing")
        found = client.re_embedding("g")
        assert (found.state, found.done, found.without_crop) == ("needed", 0, 3)
        client.re_embed("g", drop_without_crop=True)
        done = until_done(client)
        assert (done.state, done.entries) == ("current", PEOPLE)
        assert done.erased is not None
        while not client.re_embedding("g").erased.overwritten:  # type: ignore[union-attr]
            time.sleep(0.01)
        assert (done.erased.gallery, done.erased.entries) == ("g", 3)
        assert {person.person_id for person in client.persons("g")} == {f"p{n}" for n in range(PEOPLE)}
        held = b"".join(path.read_bytes() for path in data.iterdir())
        assert not any(vector.tobytes() in held for vector in bare)
    with sqlite3.connect(data / "pan.sqlite3") as db:
        assert ("drop-without-crop", 3) in db.execute("SELECT action, count FROM audit").fetchall()
    db.close()


def test_at_most_the_allowed_number_of_entries_is_dropped(other: Path, data: Path) -> None:
    with sqlite3.connect(data / "pan.sqlite3") as db:
        db.execute("UPDATE crops SET image = ? WHERE entry_id = 7", (b"damaged",))
        db.execute("DELETE FROM crops WHERE entry_id = 8")
    db.close()
    with running(Settings(bundle=other, data=data)) as http, Client(str(http.base_url)) as client:
        client.re_embed("g", drop_without_crop=True)  # the one entry without a crop
        found = until_done(client)
        assert (found.state, found.done, found.without_crop) == ("stopped", PEOPLE - 2, 2)
        assert found.problem is not None
        assert "2 of 30 entries" in found.problem
        assert client.gallery("g").entries == PEOPLE
        assert [hit.person_id for hit in client.search_entry("g", 7, top_k=100).hits or []]
        client.re_embed("g")  # continues with the allowed number; the damaged crop is tried again
        assert until_done(client).state == "stopped"
        client.re_embed("g", drop_without_crop=True)
        assert until_done(client).state == "current"
        assert client.gallery("g").entries == PEOPLE - 2
