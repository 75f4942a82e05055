"""Ids and names with special meaning in paths, queries, logs, SQL or HTML, and confusable Unicode."""

import json

import pytest

from tests.attack.conftest import VECTOR, Target, problem

ODD = [
    ".",
    "..",
    "../..",
    "a/b",
    "a\\b",
    "%2e%2e",
    "%00",
    "?limit=1",
    "#",
    ";",
    "&person_id=p1",
    " ",
    " a",
    "a ",
    "A",
    "a",
    "e\u0301",  # two encodings of one letter are two persons
    "\u00e9",
    "\u00df",
    "SS",
    "\ufb01",  # a ligature
    "fi",
    "\u0131",
    "I",
    "\u200b",  # zero-width
    "a\u200d",
    "\u202eabc",  # right-to-left override
    "\ufeff",
    "\u2028",
    "\uffff",
    "\U0010ffff",
    "\U0001f4a5" * 128,
    "NULL",
    "None",
    "true",
    "0",
    "-1",
    "1e3",
    "'; DROP TABLE entries;--",
    '"',
    "${jndi:ldap://x}",
    "{{7*7}}",
    "%s%n",
    "<script>alert(1)</script>",
    '{"level":"error"}',
]


def test_every_call_distinguishes_all_ids(target: Target) -> None:
    http = target.http
    assert http.post("/v1/galleries", json={"name": "odd"}).status_code == 201
    entries = [
        {"vector": VECTOR, "person_id": odd, "camera_id": odd, "attributes": {f"k{odd}"[:64]: odd}} for odd in ODD
    ]
    made = http.post("/v1/galleries/odd/entries", json={"entries": entries})
    assert made.status_code == 201
    ids = {odd: result["entry_id"] for odd, result in zip(ODD, made.json()["results"], strict=True)}
    listed = http.get("/v1/galleries/odd/persons", params={"limit": 1000}).json()["persons"]
    assert {person["person_id"]: person["entries"] for person in listed} == dict.fromkeys(ODD, 1)
    for odd in ODD:
        for filter_ in ({"persons": [odd]}, {"cameras": [odd]}, {"attributes": {f"k{odd}"[:64]: odd}}):
            hits = http.post("/v1/galleries/odd/search", json={"vector": VECTOR, **filter_}).json()["hits"]
            assert [hit["entry_id"] for hit in hits] == [ids[odd]]
        found = http.get("/v1/galleries/odd/entries", params={"person_id": odd}).json()["entries"]
        assert [entry["entry_id"] for entry in found] == [ids[odd]]
    left = set(ODD)
    for odd in ODD[::2]:
        erased = http.request("DELETE", "/v1/galleries/odd/persons", params={"person_id": odd})
        assert (erased.status_code, erased.json()["person_id"], erased.json()["entries"]) == (200, odd, 1)
        left.remove(odd)
        entries_left = http.get("/v1/galleries/odd/entries", params={"limit": 1000}).json()["entries"]
        assert {entry["person_id"] for entry in entries_left} == left
    assert http.delete("/v1/galleries/odd").status_code == 200


@pytest.mark.parametrize("odd", ["", "\u0000", "a\u0000b", "a\n", "\r\nX: 1", "\u007f", "x" * 129, "\ud800"])
def test_empty_too_long_and_control_character_ids_are_refused(target: Target, odd: str) -> None:
    for entry in ({"person_id": odd}, {"camera_id": odd}):
        body = json.dumps({"entries": [{"vector": VECTOR, **entry}]}).encode()
        answer = target.post("/v1/galleries/g/entries", body)
        assert answer.status_code == problem(answer)["status"] == 422


@pytest.mark.parametrize(
    "query",
    [
        "",
        "person_id=",
        "person_id=%00",
        "person_id=nobody",
        "person=p1",
        "person_id=nobody&person_id=p1",
        "person_id=p1&person_id=nobody",
        "person_id[]=p1",
        "PERSON_ID=p1",
        "person_id=p1;",
        "person_id=p1%20",
        "person_id=%ff",
    ],
)
def test_an_ambiguous_erasure_deletes_nothing(target: Target, query: str) -> None:
    answer = target.http.request("DELETE", f"/v1/galleries/g/persons?{query}")
    assert answer.status_code in (404, 422)
    problem(answer)


@pytest.mark.parametrize("name", [".", "..", "a/b", "-a", "_", "a b", "a\u0000", "a\n", "\u0430", "x" * 65, "", "*"])
def test_invalid_gallery_names_are_refused(target: Target, name: str) -> None:
    for answer in (
        target.http.post("/v1/galleries", json={"name": name}),
        target.http.patch("/v1/galleries/g", json={"name": name}),
    ):
        assert answer.status_code == problem(answer)["status"] == 422
