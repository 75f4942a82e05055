"""The scope that each call requires, and requests without a valid key."""

import re
from pathlib import Path

import pytest

from service.core.choices import Scope
from tests.service.auth.conftest import VECTOR, Guarded
from tests.support.keys import audit_of, bearer

# The scope that each call requires, independent of the code; None: any key.
CALLS = [
    ("POST", "/v1/embeddings", "embed"),
    ("POST", "/v1/explain", "embed"),
    ("POST", "/v1/compare", "embed"),
    ("POST", "/v1/galleries/lobby/search", "search"),
    ("GET", "/v1/galleries/lobby/entries/999999", "export"),
    ("POST", "/v1/galleries/lobby/entries", "enrol"),
    ("POST", "/v1/galleries/lobby/entries/stream", "enrol"),
    ("PATCH", "/v1/galleries/lobby/entries/999999", "enrol"),
    ("DELETE", "/v1/galleries/lobby/entries/999999", "erase"),
    ("DELETE", "/v1/galleries/lobby/persons?person_id=nobody", "erase"),
    ("POST", "/v1/galleries/lobby/purge", "erase"),
    ("POST", "/v1/galleries/lobby/export", "export"),
    ("POST", "/v1/galleries/lobby/import", "admin"),
    ("POST", "/v1/galleries/lobby/re-embed", "admin"),
    ("GET", "/v1/galleries/lobby/re-embed", None),
    ("GET", "/v1/galleries/lobby/entries", "export"),
    ("GET", "/v1/galleries/lobby/entries/999999/image", "export"),
    ("GET", "/v1/galleries/lobby/persons", "export"),
    ("POST", "/v1/galleries", "admin"),
    ("PATCH", "/v1/galleries/lobby", "admin"),
    ("DELETE", "/v1/galleries/nowhere", "admin"),
    ("GET", "/v1/audit", "admin"),
    ("GET", "/v1/galleries", None),
    ("GET", "/v1/galleries/lobby", None),
    ("GET", "/v1/model", None),
    ("GET", "/metrics", None),
]


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_a_call_accepts_keys_with_its_scope_only(guarded: Guarded, method: str, path: str, scope: str | None) -> None:
    for key in guarded.keys:
        answer = guarded.ask(key, method, path)
        if scope in (None, key) or key == "admin":
            assert answer.status_code not in {401, 403}, key
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), key
            assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    document = guarded.http.get("/openapi.json").json()
    path = re.sub("/entries/[0-9]+", "/entries/{entry_id}", path.partition("?")[0])
    call = document["paths"][re.sub("galleries/[a-z]+", "galleries/{gallery}", path)][method.lower()]
    assert call["security"] == [{"apiKey": [scope] if scope else []}]
    assert {"401", "403", "429"} <= set(call["responses"])


def test_the_table_above_has_every_call_that_requires_a_key(guarded: Guarded) -> None:
    document = guarded.http.get("/openapi.json").json()
    calls = {(method, path) for path, item in document["paths"].items() for method in item}
    unguarded = {(method, path) for method, path in calls if "security" not in document["paths"][path][method]}
    assert unguarded == {("get", "/healthz"), ("get", "/readyz")}
    assert len(calls) == len(CALLS) + len(unguarded)
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer pan_",
        "Bearer pan__",
        "Bearer none",
        "Bearer pan_\xe9_x",
        "Basic eDp5",
    ],
)
def test_without_a_valid_key_no_call_answers(guarded: Guarded, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    for method, path, _ in CALLS:
        answer = guarded.http.request(method, path, headers=headers)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"] == 'Bearer realm="pan-reid"'
        assert "lobby" not in answer.text
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert guarded.http.get(path, headers=headers).status_code == 200  # type: ignore[arg-type]


def test_a_key_with_one_wrong_character_is_rejected(guarded: Guarded) -> None:
    key = guarded.keys["admin"]
    for place in (0, 5, len(key) // 2, len(key) - 1):
        wrong = key[:place] + ("x" if key[place] != "x" else "y") + key[place + 1 :]
        assert guarded.http.get("/v1/model", headers=bearer(wrong)).status_code == 401
    assert guarded.http.get("/v1/model", headers=bearer(key)).status_code == 200


def test_a_key_for_search_cannot_read_entries(guarded: Guarded) -> None:
    made = guarded.ask("admin", "POST", "/v1/galleries/lobby/entries", json={"entries": [VECTOR]})
    entry = f"/v1/galleries/lobby/entries/{made.json()['results'][0]['entry_id']}"
    for path in (entry, f"{entry}/image", "/v1/galleries/lobby/entries", "/v1/galleries/lobby/persons"):
        assert guarded.ask("search", "GET", path).status_code == 403
    assert guarded.ask("export", "GET", entry).status_code == 200
    before = len(audit_of(guarded.data))
    hits = guarded.ask("search", "POST", "/v1/galleries/lobby/search", json=VECTOR).json()["hits"]
    assert hits[0].keys() >= {"entry_id", "person_id", "camera_id", "captured_at", "attributes"}
    assert ("search-only", "search", 1, "") in audit_of(guarded.data)[before:]


def test_the_documentation_lists_every_scope() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "api-keys.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*Scope}
