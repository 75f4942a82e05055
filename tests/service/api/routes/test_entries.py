"""Entries over HTTP: list, filter, change, delete."""

from datetime import UTC, datetime

import httpx
import pytest

from pan_reid import schemas
from tests.service.api.calls import b64, enrol, files, ids, problem
from tests.support.bundles import DIM
from tests.support.pictures import png


def test_an_entry_keeps_its_metadata(api: httpx.Client, gallery: str) -> None:
    info = {
        "person_id": "Ann / 7 ü",
        "camera_id": "c1",
        "captured_at": "2024-02-29T12:00:00.123456+02:00",
        "attributes": {"file": "a.jpg", "score": 0.5, "n": 3, "ok": True, "none": None},
    }
    (entry_id,) = ids(enrol(api, gallery, {"image": b64(png(1)), **info}))
    entry = schemas.Entry.model_validate_json(api.get(f"/v1/galleries/{gallery}/entries/{entry_id}").content)
    assert (entry.person_id, entry.camera_id) == ("Ann / 7 ü", "c1")
    assert entry.captured_at == datetime(2024, 2, 29, 10, 0, 0, 123456, UTC)
    assert entry.attributes == info["attributes"]
    hit = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1))).json()["hits"][0]
    assert (hit["entry_id"], hit["attributes"]) == (entry_id, info["attributes"])
    assert hit["score"] == pytest.approx(1.0, abs=1e-5)


def test_integers_in_attributes_are_compared_exactly(api: httpx.Client, gallery: str) -> None:
    numbers = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64 - 1, 3]
    enrol(api, gallery, *[{"vector": [1.0] * DIM, "attributes": {"n": n}, "person_id": str(n)} for n in numbers])

    def found(number: str) -> list[str]:
        query = f'{{"vector": {[1.0] * DIM}, "attributes": {{"n": {number}}}}}'
        headers = {"Content-Type": "application/json"}
        answer = api.post(f"/v1/galleries/{gallery}/search", content=query, headers=headers)
        return [hit["person_id"] for hit in answer.json()["hits"]]

    for number in numbers:
        assert found(str(number)) == [str(number)]
    for text, number in [("9007199254740992.0", 2**53), ("9.223372036854775808e18", 2**63), ("3.0", 3), ("0.3e1", 3)]:
        assert found(text) == [str(number)]
    assert found("9007199254740994") == found("1e300") == []


def test_entries_are_paged_and_filtered(api: httpx.Client, gallery: str) -> None:
    made = ids(
        enrol(
            api,
            gallery,
            *({"image": b64(png(n)), "person_id": f"p{n % 3}", "camera_id": f"c{n % 2}"} for n in range(10)),
        )
    )
    path, seen, cursor = f"/v1/galleries/{gallery}/entries", [], None
    while True:
        page = schemas.EntryPage.model_validate_json(
            api.get(path, params={"limit": 4, **({"cursor": cursor} if cursor else {})}).content
        )
        assert len(page.entries) <= 4
        seen += [entry.entry_id for entry in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made
    chosen = api.get(path, params={"person_id": "p1", "camera_id": "c0"}).json()["entries"]
    assert [entry["entry_id"] for entry in chosen] == [made[n] for n in range(10) if n % 3 == 1 and n % 2 == 0]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": str(2**64)}):
        problem(api.get(path, params=wrong), 422, "invalid-request")


def test_a_changed_entry_is_found_by_its_new_metadata_at_once(api: httpx.Client, gallery: str) -> None:
    (entry_id,) = ids(enrol(api, gallery, {"image": b64(png(1)), "person_id": "a", "camera_id": "c1"}))
    path = f"/v1/galleries/{gallery}/entries/{entry_id}"
    assert api.patch(path, json={"person_id": "b"}).json()["camera_id"] == "c1"
    assert api.patch(path, json={"camera_id": None, "attributes": {"x": 1}}).json()["person_id"] == "b"
    found = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1)), data={"group_by": "person"}).json()
    assert [person["person_id"] for person in found["persons"]] == ["b"]
    assert api.get(path).json()["attributes"] == {"x": 1}
    problem(api.patch(path, json={"vector": [1]}), 422, "invalid-request")


def test_a_deleted_entry_is_neither_listed_nor_found(api: httpx.Client, gallery: str) -> None:
    one, two = ids(enrol(api, gallery, {"image": b64(png(1))}, {"image": b64(png(2))}))
    path = f"/v1/galleries/{gallery}/entries/{one}"
    assert api.delete(path).status_code == 204
    for answer in (api.get(path), api.delete(path), api.patch(path, json={})):
        problem(answer, 404, "not-found")
    problem(api.post(f"/v1/galleries/{gallery}/search", json={"entry_id": one}), 404, "not-found")
    hits = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1))).json()["hits"]
    assert [hit["entry_id"] for hit in hits] == [two]
    other = enrol(api, gallery, {"image": b64(png(1))})
    assert ids(other)[0] > two  # ids are not reused


def test_an_entry_of_another_gallery_is_not_found(api: httpx.Client, gallery: str) -> None:
    (entry_id,) = ids(enrol(api, gallery, {"image": b64(png(1))}))
    api.post("/v1/galleries", json={"name": "elsewhere"})
    path = f"/v1/galleries/elsewhere/entries/{entry_id}"
    for answer in (api.get(path), api.delete(path), api.patch(path, json={"person_id": "x"})):
        problem(answer, 404, "not-found")
    assert api.get(f"/v1/galleries/{gallery}/entries/{entry_id}").json()["person_id"] is None
