"""Galleries and their persons over HTTP."""

import httpx
import pytest

from pan_reid import schemas
from tests.service.api.calls import b64, enrol, files, ids, problem
from tests.support.pictures import png


def test_a_gallery_is_created_listed_changed_and_erased(api: httpx.Client) -> None:
    made = api.post("/v1/galleries", json={"name": "mall", "purpose": "lost children"})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/galleries/mall"
    gallery = schemas.Gallery.model_validate_json(made.content)
    assert (gallery.purpose, gallery.index, gallery.entries, gallery.searchable) == ("lost children", "auto", 0, True)
    assert gallery.fingerprint == api.get("/v1/model").json()["fingerprint"]
    problem(api.post("/v1/galleries", json={"name": "mall"}), 409, "conflict")
    changed = api.patch("/v1/galleries/mall", json={"purpose": "found children"})
    assert changed.json() == {**made.json(), "purpose": "found children"}
    assert changed.json() in api.get("/v1/galleries").json()["galleries"]
    enrol(api, "mall", {"image": b64(png(1))}, {"image": b64(png(2)), "person_id": "x"})
    assert (api.get("/v1/galleries/mall").json()["entries"], api.get("/v1/galleries/mall").json()["persons"]) == (2, 1)
    receipt = schemas.ErasureReceipt.model_validate_json(api.delete("/v1/galleries/mall").content)
    assert (receipt.gallery, receipt.entries) == ("mall", 2)
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/entries"), ("GET", "/persons")]:
        problem(api.request(method, f"/v1/galleries/mall{path}"), 404, "not-found")
    problem(api.post("/v1/galleries/mall/search", json={"entry_id": 1}), 404, "not-found")
    problem(enrol(api, "mall", {"image": b64(png(1))}), 404, "not-found")
    assert api.post("/v1/galleries", json={"name": "mall"}).json()["entries"] == 0


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 65, "ü", None, 7])
def test_a_gallery_name_that_is_not_valid_in_a_path_is_refused(api: httpx.Client, name: object) -> None:
    problem(api.post("/v1/galleries", json={"name": name}), 422, "invalid-request")


def test_persons_are_counted_paged_and_erased_with_a_receipt(api: httpx.Client, gallery: str) -> None:
    crops = [("ann", "c1"), ("ann", "c2"), ("ben/x", "c1"), (None, "c1"), ("ann", "c1")]
    entries = [
        {"image": b64(png(n)), "person_id": person, "camera_id": camera} for n, (person, camera) in enumerate(crops)
    ]
    made = ids(enrol(api, gallery, *entries))
    path = f"/v1/galleries/{gallery}/persons"
    page = api.get(path, params={"limit": 1}).json()
    assert page["persons"] == [{"person_id": "ann", "entries": 3, "cameras": 2}]
    page = api.get(path, params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert page == {"persons": [{"person_id": "ben/x", "entries": 1, "cameras": 1}], "next_cursor": None}
    receipt = schemas.ErasureReceipt.model_validate_json(api.delete(path, params={"person_id": "ann"}).content)
    assert (receipt.gallery, receipt.person_id, receipt.entries) == (gallery, "ann", 3)
    problem(api.delete(path, params={"person_id": "ann"}), 404, "not-found")
    assert api.delete(path, params={"person_id": "ben/x"}).json()["entries"] == 1
    assert api.get(path).json()["persons"] == []
    hits = api.post(f"/v1/galleries/{gallery}/search", files=files(png(0))).json()["hits"]
    assert [hit["entry_id"] for hit in hits] == [made[3]]
