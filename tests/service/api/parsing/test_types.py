"""Values of a wrong type: refused by name in bodies, forms, queries and imports."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.api.app import openapi_document
from tests.support.bundles import DIM
from tests.support.pictures import png

DOCUMENT = openapi_document()
VECTOR = [1.0] + [0.0] * (DIM - 1)
PICTURE = base64.b64encode(png(1)).decode()
# Valid arguments of each call, besides the wrong member.
NEEDED: dict[str, dict[str, Any]] = {
    "/v1/galleries/{gallery}/search": {"vector": VECTOR},
    "/v1/compare": {"a": [PICTURE], "b": [PICTURE]},
    "/v1/galleries": {"name": "other"},
}
WRONG: dict[str, list[Any]] = {
    "boolean": ["off", "true", 0, 1, 0.0, [], {}],
    "integer": [True, "5", 1.5, 2.0, [], {}],
    "number": [True, False, "0.5", [0.5], {}],
}
WRONG_TEXT: dict[str, list[str]] = {
    "boolean": ["on", "off", "yes", "1", "0", "TRUE", " true", "t"],
    "integer": ["5.0", "1e2", " 5", "+5", "1_0", "0x5", "true", "\u0665", "9" * 5000],
    "number": ["nan", "inf", "0.5 ", "0,5", "1_0", "true", "0x1", "1e999", "\u0665"],
}


def kinds(schema: dict[str, Any]) -> Iterator[str]:
    for part in [schema, *schema.get("anyOf", [])]:
        if part.get("type") in WRONG:
            yield part["type"]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    for part in [schema, *schema.get("anyOf", [])]:
        if "$ref" in part:
            found: dict[str, Any] = DOCUMENT["components"]["schemas"][part["$ref"].rsplit("/", 1)[1]]
            return found
    return schema


def members(content_type: str) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Method, path, the names that lead to a member, and its type."""
    for path, item in DOCUMENT["paths"].items():
        for method, call in item.items():
            schema = resolved(call.get("requestBody", {}).get("content", {}).get(content_type, {}).get("schema", {}))
            for name, member in schema.get("properties", {}).items():
                for kind in kinds(member):
                    yield method, path, (name,), kind
                for inner, below in resolved(member).get("properties", {}).items():
                    for kind in kinds(below):
                        yield method, path, (name, inner), kind


JSON_MEMBERS = list(members("application/json"))
FORM_MEMBERS = [member for member in members("multipart/form-data") if len(member[2]) == 1]


def test_every_member_of_the_schemas_is_checked() -> None:
    found = {".".join(names) for _, _, names, _ in JSON_MEMBERS}
    assert {"keep_crops", "retention_days", "top_k", "threshold", "rerank.k1", "rerank.lambda", "entry_id"} <= found
    assert {"exclude_same_camera", "examples"} <= {names[0] for _, _, names, _ in FORM_MEMBERS}


@pytest.mark.parametrize(("method", "path", "names", "kind"), JSON_MEMBERS)
def test_json_of_a_wrong_type_is_refused_by_name(
    api: httpx.Client, gallery: str, method: str, path: str, names: tuple[str, ...], kind: str
) -> None:
    for wrong in WRONG[kind]:
        value = wrong if len(names) == 1 else {names[1]: wrong}
        needed = {} if names == ("entry_id",) else NEEDED.get(path, {})
        answer = api.request(method, path.replace("{gallery}", gallery), json={**needed, names[0]: value})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), (wrong, answer.text)
        assert names[-1] in answer.json()["detail"], answer.text
    assert api.get("/v1/galleries/other").status_code == 404
    shown = api.get(f"/v1/galleries/{gallery}").json()
    assert (shown["keep_crops"], shown["retention_days"]) == (False, None)


@pytest.mark.parametrize(("method", "path", "names", "kind"), FORM_MEMBERS)
def test_text_that_is_not_a_valid_value_is_refused_by_name(
    api: httpx.Client, gallery: str, method: str, path: str, names: tuple[str, ...], kind: str
) -> None:
    sides = ("a", "b") if path == "/v1/compare" else ("images",)
    files = [(side, ("x", png(1))) for side in sides]
    url = path.replace("{gallery}", gallery)
    for wrong in WRONG_TEXT[kind]:
        for where in ("data", "params"):
            answer = api.request(method, url, files=files, **{where: {names[0]: wrong}})  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), (wrong, answer.text)
            assert names[0] in answer.json()["detail"]
    twice = api.request(method, url, files=files, params=[(names[0], "1"), (names[0], "1")])
    assert (twice.status_code, "more than once" in twice.json()["detail"]) == (422, True)


def test_text_in_forms_and_queries_is_parsed_by_type(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}"
    for n in range(3):
        fields = {"metadata": json.dumps([{"camera_id": f"c{n}", "attributes": {"n": n}}])}
        assert api.post(f"{path}/entries", data=fields, files={"images": png(n)}).status_code == 201
    asked = {
        "top_k": "2",
        "threshold": "-1e-1",
        "cameras": "c1",
        "attributes": '{"n": [1, true]}',
        "rerank": '{"candidates": 5}',
        "exclude_same_camera": "false",
    }
    raw = {"content": png(1), "headers": {"Content-Type": "image/png"}}
    for answer in (
        api.post(f"{path}/search", data=asked, files={"images": png(1)}),
        api.post(f"{path}/search", params=asked, **raw),  # type: ignore[arg-type]
    ):
        found = answer.json()
        assert ([hit["camera_id"] for hit in found["hits"]], found["decision"]["threshold"]) == (["c1"], -0.1)
    known = {"person_id": "p", "attributes": '{"coat": "red"}'}
    assert api.post(f"{path}/entries", params=known, **raw).status_code == 201  # type: ignore[arg-type]
    last = api.get(f"{path}/entries").json()["entries"][-1]
    assert (last["person_id"], last["attributes"]) == ("p", {"coat": "red"})
    for member, text in [("attributes", '["n"]'), ("attributes", "{"), ("rerank", "true"), ("rerank", "[")]:
        refused = api.post(f"{path}/search", data={member: text}, files={"images": png(1)})
        assert (refused.status_code, member in refused.json()["detail"]) == (422, True)
    for member in ("attributes", "rerank"):  # JSON text is for forms; in a JSON body it is a string
        assert api.post(f"{path}/search", json={"vector": VECTOR, member: "{}"}).status_code == 422


@pytest.mark.parametrize("wrong", ["1.0", " 1", "+1", "1_0", "true", "\u0661", ""])
def test_numbers_in_a_path_or_query_must_be_digits(api: httpx.Client, gallery: str, wrong: str) -> None:
    path = f"/v1/galleries/{gallery}"
    for what in ("entries", "persons"):
        assert api.get(f"{path}/{what}", params={"limit": wrong}).status_code == 422
    assert api.get(f"{path}/entries", params={"cursor": wrong}).status_code == 422
    assert wrong == "" or api.get(f"{path}/entries/{wrong}").status_code == 404
    assert api.post(f"{path}/re-embed", params={"drop_without_crop": wrong}).status_code == (422, 200)[wrong == "true"]


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("version", True),
        ("version", 1.0),
        ("version", 3),
        ("dim", float(DIM)),
        ("dim", str(DIM)),
        ("keep_crops", 0),
        ("keep_crops", "off"),
        ("retention_days", True),
        ("retention_days", "30"),
        ("retention_days", 0),
        ("retention_days", 1e-12),
        ("retention_days", 5e-324),
        ("fingerprint", 5),
        ("purpose", None),
        ("unheard_of", 1),
    ],
)
def test_the_header_of_an_import_is_validated_strictly(
    api: httpx.Client, gallery: str, member: str, wrong: Any
) -> None:
    head, end = api.post(f"/v1/galleries/{gallery}/export").text.splitlines()
    body = "\n".join([json.dumps({**json.loads(head), member: wrong}), end])
    answer = api.post("/v1/galleries/copy/import", content=body, headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 422
    assert member in answer.json()["detail"] or member == "version"
    assert api.get("/v1/galleries/copy").status_code == 404


@pytest.mark.parametrize("days", [0, -1, 1e-12, 5e-324, 0.00099, 36_501, True, "30", "P3D"])
def test_an_invalid_retention_is_refused(api: httpx.Client, gallery: str, days: Any) -> None:
    made = api.post("/v1/galleries", json={"name": "hasty", "retention_days": days})
    changed = api.patch(f"/v1/galleries/{gallery}", json={"retention_days": days})
    for answer in (made, changed):
        assert (answer.status_code, "retention_days" in answer.json()["detail"]) == (422, True)
