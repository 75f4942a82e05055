"""Rules: searches, embeddings, and arbitrary calls."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from benchmarks.fuzz import values
from benchmarks.fuzz.api import Fault, path
from benchmarks.fuzz.model import Gallery, Query, best_by_person, parse_time, ranking_faults, scores
from benchmarks.fuzz.state import State, picks


class SearchRules(State):
    """Searches are compared with brute force. Arbitrary calls must get a valid response."""

    @precondition(lambda self: self.galleries)
    @rule(pick=picks, seed=st.integers(0, 200), top_k=st.integers(1, 20), data=st.data())
    def search(self, pick: int, seed: int, top_k: int, data: st.DataObject) -> None:
        name, gallery = self._pick(pick)
        query, options = data.draw(filters(values.direction(seed)))
        self._search(name, gallery, query, {"vector": query.vector.tolist(), **options}, top_k)

    @precondition(lambda self: self._some_entry())
    @rule(pick=picks, top_k=st.integers(1, 20))
    def search_by_entry(self, pick: int, top_k: int) -> None:
        name, gallery, entry_id = self._pick_entry(pick)
        query = Query(gallery.entries[entry_id].vector, exclude_entries=frozenset({entry_id}))
        self._search(name, gallery, query, {"entry_id": entry_id}, top_k)

    @precondition(lambda self: self.galleries)
    @rule(pick=picks, picture=values.pictures)
    def search_by_picture(self, pick: int, picture: bytes) -> None:
        name, gallery = self._pick(pick)
        answer = self.api.ask("POST", path(name, "search"), files={"images": ("a", picture)}, data={"top_k": "5"})
        if gallery.fingerprint != self.world.fingerprint:
            answer.expect(409)
        else:
            self._check_hits(answer.expect(200), scores(gallery, Query(self._embedding(picture))), 5)

    @precondition(lambda self: self.galleries)
    @rule(
        pick=picks,
        member=st.sampled_from(
            [
                "top_k",
                "fuse",
                "cameras",
                "persons",
                "captured_from",
                "captured_until",
                "attributes",
                "threshold",
                "camera_id",
                "group_by",
                "examples",
                "rerank",
                "fingerprint",
                "vector",
                "false_positive_rate",
                "other",
            ]
        ),
        value=values.wrong_types | values.hostile_texts | values.hostile_times | values.hostile_vectors,
    )
    def search_hostile(self, pick: int, member: str, value: Any) -> None:
        name, _ = self._pick(pick)
        answer = self.api.ask("POST", path(name, "search"), {"vector": values.direction(0).tolist(), member: value})
        if answer.ok and any(abs(hit["score"]) > 1.0 + 1e-4 for hit in answer.json["hits"] or []):
            raise Fault(f"{answer.sent} found scores beyond 1: {answer.content[:500]!r}")

    def _search(self, name: str, gallery: Gallery, query: Query, body: dict[str, Any], top_k: int) -> None:
        if gallery.fingerprint != self.world.fingerprint and "entry_id" not in body:
            self.api.ask("POST", path(name, "search"), body).expect(409)
            body = {**body, "fingerprint": gallery.fingerprint}
        expected = scores(gallery, query)
        self._check_hits(
            self.api.ask("POST", path(name, "search"), {**body, "top_k": top_k}).expect(200), expected, top_k
        )
        grouped = {**body, "top_k": top_k, "group_by": "person"}
        found = self.api.ask("POST", path(name, "search"), grouped).expect(200).json["persons"]
        people = best_by_person(gallery, query)
        faults = ranking_faults(
            [(one["person_id"], one["score"]) for one in found],
            {person: best for person, (best, _, _) in people.items()},
            top_k,
        )
        if faults or any(one["entries"] != people[one["person_id"]][2] for one in found):
            raise Fault(f"search of {name} by person: {faults or found}")

    @rule(
        method=st.sampled_from(["GET", "POST", "PATCH", "PUT", "HEAD", "OPTIONS"]),
        parts=st.lists(
            st.sampled_from(
                ["g1", "entries", "persons", "search", "stream", "import", "export", "re-embed", "image", "1"]
            )
            | values.hostile_texts,
            max_size=4,
        ),
        query=st.dictionaries(
            st.sampled_from(["cursor", "limit", "person_id", "camera_id", "x", "top_k"]),
            values.hostile_texts,
            max_size=2,
        ),
        body=st.none() | values.wrong_types | st.dictionaries(values.hostile_texts, values.wrong_types, max_size=2),
    )
    def anything(self, method: str, parts: list[str], query: dict[str, str], body: Any) -> None:
        self.api.ask(method, path(*parts), body, params=query)

    @rule(
        where=st.sampled_from(["/v1/embeddings", "/v1/compare", "/v1/explain"]),
        pictures=st.lists(values.pictures | values.hostile_pictures, max_size=3),
        options=st.dictionaries(
            st.sampled_from(["boxes", "threshold", "encoding", "a", "b"]), values.hostile_texts, max_size=2
        ),
    )
    def inference(self, where: str, pictures: list[bytes], options: dict[str, str]) -> None:
        side = ["a", "b"] if where.endswith("compare") else ["images", "images"]
        files = [(side[place % 2], ("x", data)) for place, data in enumerate(pictures)]
        answer = self.api.ask("POST", where, files=files or None, data=options)
        if answer.ok and where.endswith("embeddings"):
            for one in answer.json["embeddings"]:
                if "vector" in one and one["vector"] and abs(np.linalg.norm(one["vector"]) - 1) > 1e-4:
                    raise Fault(f"an embedding has length {np.linalg.norm(one['vector'])}")


@st.composite
def filters(draw: st.DrawFn, vector: values.Vector) -> tuple[Query, dict[str, Any]]:
    """A query with some filters, and the members of its request."""
    kinds = ["cameras", "persons", "exclude_persons", "window", "attributes"]
    names = draw(st.sets(st.sampled_from(kinds), max_size=2))
    wanted: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if "cameras" in names:
        options["cameras"] = draw(st.lists(values.camera_ids, max_size=2))
        wanted["cameras"] = frozenset(options["cameras"])
    for member in ("persons", "exclude_persons"):
        if member in names:
            options[member] = draw(st.lists(st.sampled_from(values.PERSONS), max_size=2))
            wanted[member] = frozenset(options[member])
    if "window" in names:
        at = draw(st.sampled_from(values.TIMES))
        side = draw(st.sampled_from(["captured_from", "captured_until"]))
        options[side], wanted[side] = at, parse_time(at)
    if "attributes" in names:
        name, value = draw(st.sampled_from(values.PAIRS))
        options["attributes"] = {name: value}
        wanted["attributes"] = ((name, (value,)),)
    return Query(vector, **wanted), options
