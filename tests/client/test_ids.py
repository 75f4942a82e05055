"""Arbitrary ids of persons and cameras, and invalid names of galleries, in every call of both clients."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from pan_reid import ApiError, AsyncClient, Client, ClientError, Crop, VectorCrop
from pan_reid.schemas import EntryInfo
from tests.support.bundles import DIM
from tests.support.pictures import png
from tests.support.servers import all_entries

PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
AWKWARD = [
    "..",
    ".",
    "../..",
    "%2E%2E",
    "a/b",
    "/",
    "a/../b",
    "?x=1",
    "#",
    "a&b=c",
    " ",
    "%00",
    "+",
    ";",
    "\\..",
    "ü☃𝄞",
]
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
VECTOR = np.random.default_rng(0).normal(size=DIM).astype(np.float32)
PICTURE = png(1)

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def callers(api: httpx.Client) -> Iterator[dict[str, Call]]:
    """Both clients behind one function: the result of a call, or a list of the iterated items."""
    url = str(api.base_url)
    with Client(url, retries=0) as blocking, asyncio.Runner() as loop:
        awaiting = AsyncClient(url, retries=0)

        async def result(answer: Any) -> Any:
            return [item async for item in answer] if hasattr(answer, "__aiter__") else await answer

        def call_blocking(name: str, *arguments: Any, **options: Any) -> Any:
            answer = getattr(blocking, name)(*arguments, **options)
            return list(answer) if isinstance(answer, Iterator) else answer

        def call_awaiting(name: str, *arguments: Any, **options: Any) -> Any:
            return loop.run(result(getattr(awaiting, name)(*arguments, **options)))

        yield {"Client": call_blocking, "AsyncClient": call_awaiting}
        loop.run(awaiting.close())


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@seed(0)
@settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(person=PRINTABLE, camera=PRINTABLE)
@example("..", ".")
@example(".", "..")
@example("%2E%2E", "a/../b")
@example("a/b", "?x=1&y#z")
@example("../..", " ")
def test_an_arbitrary_id_selects_one_person_in_every_call(
    kind: str, callers: dict[str, Call], api: httpx.Client, person: str, camera: str
) -> None:
    call = callers[kind]
    for name in all_entries(api):
        api.delete(f"/v1/galleries/{name}")
    for name in ("hall", "other"):
        call("create_gallery", name)
    ours = EntryInfo(person_id=person, camera_id=camera, attributes={person: camera})
    theirs = EntryInfo(person_id=f"{person[:100]}x", camera_id=f"{camera[:100]}x")
    by_picture = [one.entry_id for one in call("enrol", "hall", [Crop(PICTURE, ours), Crop(PICTURE, theirs)]).results]
    streamed = [VectorCrop(VECTOR, ours), VectorCrop(VECTOR, EntryInfo(camera_id=f"{camera[:100]}y"))]
    by_vector = [one.entry_id for one in call("enrol_stream", "hall", streamed)]
    (elsewhere,) = [one.entry_id for one in call("enrol_stream", "other", [VectorCrop(VECTOR, ours)])]
    call("update_entry", "hall", by_vector[1], person_id=person)
    assert call("entry", "hall", by_vector[1]).person_id == person
    mine = {by_picture[0], by_vector[0], by_vector[1]}
    hall = {
        (by_picture[0], person, camera),
        (by_picture[1], theirs.person_id, theirs.camera_id),
        (by_vector[0], person, camera),
        (by_vector[1], person, f"{camera[:100]}y"),
    }
    other = {(elsewhere, person, camera)}
    assert all_entries(api) == {"hall": hall, "other": other}

    assert {one.entry_id for one in call("entries", "hall", person_id=person)} == mine
    assert {one.entry_id for one in call("entries", "hall", camera_id=camera)} == mine - {by_vector[1]}
    assert {one.person_id: one.entries for one in call("persons", "hall")} == {person: 3, theirs.person_id: 1}

    def found(name: str, *query: Any, **options: Any) -> set[int]:
        return {hit.entry_id for hit in call(name, "hall", *query, **options).hits}

    for search in (("search", PICTURE), ("search_vector", VECTOR)):
        assert found(*search, persons=[person]) == mine
        assert found(*search, exclude_persons=[person]) == {by_picture[1]}
        assert found(*search, cameras=[camera]) == mine - {by_vector[1]}
        assert found(*search, exclude_cameras=[camera]) == {by_picture[1], by_vector[1]}
        assert found(*search, attributes={person: camera}) == mine - {by_vector[1]}
        rule = {"person_id": person, "camera_id": camera, "exclude_same_person_same_camera": True}
        assert found(*search, **rule) == {by_picture[1], by_vector[1]}
    grouped = call("search_entry", "hall", by_picture[1], group_by="person").persons
    assert [one.person_id for one in grouped] == [person]

    file = BytesIO()
    call("export_gallery", "hall", file.write)
    file.seek(0)
    call("import_gallery", "copy", file)
    assert {row[1:] for row in all_entries(api)["copy"]} == {row[1:] for row in hall}
    assert call("erase_person", "copy", person).entries == 3
    assert call("delete_gallery", "copy").entries == 1

    erased = call("erase_person", "hall", person)
    assert (erased.gallery, erased.person_id, erased.entries) == ("hall", person, 3)
    assert all_entries(api) == {"hall": {row for row in hall if row[0] not in mine}, "other": other}


def _named_calls() -> dict[str, tuple[Any, ...]]:
    """Every call with the name of a gallery, and its other arguments."""
    besides: dict[str, tuple[Any, ...]] = {
        "enrol": ([Crop(PICTURE)],),
        "enrol_stream": ([VectorCrop(VECTOR)],),
        "export_gallery": (lambda _: None,),
        "import_gallery": (BytesIO(b"{}"),),
        "erase_person": ("p",),
        "search": (PICTURE,),
        "search_vector": (VECTOR,),
        "search_entry": (1,),
    }
    found = {}
    for name, method in vars(Client).items():
        first = [*inspect.signature(method).parameters][1:2] if callable(method) and name[0] != "_" else []
        if first and first[0] in {"gallery", "name"}:
            takes_entry = "entry_id" in inspect.signature(method).parameters
            found[name] = (1,) if takes_entry else besides.get(name, ())
    return found


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@seed(0)
@settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.from_regex(NAME, fullmatch=True))
@example("")
@example("..")
@example("../galleries/kept")
@example("kept/entries/1")
@example("kept/persons?person_id=p&x=")
@example("kept%2Fentries%2F1")
@example("kept/")
@example("./kept")
@example("kept\n")
def test_an_invalid_name_reaches_no_gallery(kind: str, callers: dict[str, Call], api: httpx.Client, name: str) -> None:
    assert name != "kept"
    for other in all_entries(api):
        api.delete(f"/v1/galleries/{other}")
    api.post("/v1/galleries", json={"name": "kept"})
    api.post("/v1/galleries/kept/entries", json={"entries": [{"vector": VECTOR.tolist(), "person_id": "p"}]})
    before = all_entries(api)
    calls = _named_calls()
    assert len(calls) >= 19
    for call, besides in calls.items():
        try:
            callers[kind](call, name, *besides)
        except ClientError as error:
            status = error.status if isinstance(error, ApiError) else None
        else:
            status = 200
        if status == 200:
            assert call == "create_gallery", call
            assert callers[kind]("delete_gallery", name).gallery == name
        else:
            assert status in {None, 404, 409, 422}, call
    assert all_entries(api) == before
