"""Searches of a gallery against brute force, with random filters after random changes."""

import json
import pickle
import threading
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.models import NewEntry
from service.index.attributes import attribute_key
from service.index.gallery_index import GalleryIndex, Grouping
from service.index.metadata import Filter

DIM = 8
PERSONS = [None, "ann", "ben", "cat"]
CAMERAS = [None, "c1", "c2", "c3"]
TIMES = [None, 10, 20, 30]
ATTRIBUTES: list[dict[str, Any]] = [{}, {"coat": "red"}, {"coat": "red", "n": 1}, {"coat": None, "n": True}, {"n": 2.0}]


def unit(seed: int | tuple[int, int], count: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_metadata(rng: np.random.Generator) -> NewEntry:
    def pick(values: list[Any]) -> Any:
        return values[rng.integers(len(values))]

    return NewEntry(pick(PERSONS), pick(CAMERAS), pick(TIMES), json.dumps(pick(ATTRIBUTES)))


Wanted = list[tuple[str, list[Any]]]


class BruteForce:
    """The reference: a dictionary of entries, searched one by one."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[NewEntry, np.ndarray]] = {}

    def allowed(self, where: Filter, wanted: Wanted) -> list[int]:
        passing = []
        for entry, (metadata, _) in self.entries.items():
            person, camera, at = metadata.person_id, metadata.camera_id, metadata.captured_at
            if where.cameras is not None and camera not in where.cameras:
                continue
            if where.persons is not None and person not in where.persons:
                continue
            if camera in where.exclude_cameras or person in where.exclude_persons:
                continue
            if where.captured_from is not None and (at is None or at < where.captured_from):
                continue
            if where.captured_until is not None and (at is None or at >= where.captured_until):
                continue
            attributes = json.loads(metadata.attributes)
            if not all(
                name in attributes and any(same(attributes[name], value) for value in values) for name, values in wanted
            ):
                continue
            if (person, camera) in where.exclude_persons_at_cameras or entry in where.exclude_entries:
                continue
            if where.has_person and person is None:
                continue
            passing.append(entry)
        return passing

    def search(self, query: np.ndarray, top_k: int, where: Filter, wanted: Wanted) -> list[tuple[int, float]]:
        scored = [(entry, float((query @ self.entries[entry][1]).max())) for entry in self.allowed(where, wanted)]
        return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:top_k]

    def persons(
        self, query: np.ndarray, top_k: int, where: Filter, wanted: Wanted, by: str
    ) -> list[tuple[str, float, float, int]]:
        scores: dict[str, list[float]] = {}
        for entry, score in self.search(query, len(self.entries), where, wanted):
            person = self.entries[entry][0].person_id
            if person is not None:
                scores.setdefault(person, []).append(score)
        groups = [(person, max(own), sum(own) / len(own), len(own)) for person, own in scores.items()]
        return sorted(groups, key=lambda group: -group[1 if by == "best" else 2])[:top_k]


def same(a: Any, b: Any) -> bool:
    """Equality in JSON: 1 equals 1.0, but not true."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


filters = st.builds(
    Filter,
    cameras=st.none() | st.frozensets(st.sampled_from(["c1", "c2", "c3", "nowhere"])),
    exclude_cameras=st.frozensets(st.sampled_from(["c1", "c2", "nowhere"])),
    persons=st.none() | st.frozensets(st.sampled_from(["ann", "ben", "nobody"])),
    exclude_persons=st.frozensets(st.sampled_from(["ann", "nobody"])),
    captured_from=st.none() | st.sampled_from([5, 10, 11, 40]),
    captured_until=st.none() | st.sampled_from([5, 20, 21, 40]),
    exclude_persons_at_cameras=st.frozensets(
        st.tuples(st.sampled_from(["ann", "ben"]), st.sampled_from(["c1", "c2"])), max_size=2
    ),
    exclude_entries=st.frozensets(st.integers(1, 400), max_size=3),
)
wanted_attributes = st.lists(
    st.tuples(
        st.sampled_from(["coat", "n", "absent"]),
        st.lists(st.sampled_from(["red", "blue", None, 1, 1.0, 2, True, False]), max_size=2),
    ),
    max_size=2,
    unique_by=lambda pair: pair[0],
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 120), st.integers(0, 10**6)),
        st.tuples(st.just("remove"), st.integers(1, 90), st.integers(0, 10**6)),
        st.tuples(st.just("update"), st.integers(1, 5), st.integers(0, 10**6)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(
    steps=steps, where=filters, wanted=wanted_attributes, top_k=st.integers(1, 50), seed=st.integers(0, 10**6),
    by=st.sampled_from(["best", "mean"])
)  # fmt: skip
def test_searches_agree_with_brute_force_after_any_changes_with_any_filter(
    steps: list[tuple[str, int, int]],
    where: Filter,
    wanted: Wanted,
    top_k: int,
    seed: int,
    by: Literal["best", "mean"],
) -> None:
    gallery, model, last = GalleryIndex(DIM), BruteForce(), 0
    for kind, count, step_seed in steps:
        rng = np.random.default_rng(step_seed)
        if kind == "add":
            ids = list(range(last + 1, last + 1 + count))
            last += count
            metadata = [random_metadata(rng) for _ in ids]
            vectors = unit((step_seed, last), count)  # all distinct, because ties have no defined order
            gallery.add(ids, metadata, vectors)
            model.entries |= dict(zip(ids, zip(metadata, vectors, strict=True), strict=True))
        elif model.entries:
            chosen = rng.choice(sorted(model.entries), size=min(count, len(model.entries)), replace=False).tolist()
            if kind == "remove":
                gallery.remove(chosen)
                for id_ in chosen:
                    del model.entries[id_]
            else:
                for id_ in chosen:
                    metadata = random_metadata(rng)
                    gallery.update_metadata(id_, metadata)
                    model.entries[id_] = (metadata, model.entries[id_][1])
    assert len(gallery) == len(model.entries)
    where = replace(
        where, attributes=frozenset(frozenset(attribute_key(name, v) for v in values) for name, values in wanted)
    )
    queries = [unit((seed, n), n) for n in (1, 1, 3, 2)]  # the score is the best of several vectors
    for query, hits in zip(queries, gallery.search(queries, top_k, where), strict=True):
        truth = model.search(query, top_k, where, wanted)
        assert sorted(hit.entry_id for hit in hits) == sorted(entry for entry, _ in truth)
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in truth], atol=1e-6)
    named = replace(where, has_person=True)
    for query in queries[1:3]:
        groups = gallery.search_persons(query, min(top_k, 3), named, Grouping(by, examples=2))
        truth_groups = model.persons(query, min(top_k, 3), where, wanted, by)
        assert [group.person_id for group in groups] == [person for person, *_ in truth_groups]
        for group, (_, best, mean, entries) in zip(groups, truth_groups, strict=True):
            assert (group.best, group.mean) == pytest.approx((best, mean), abs=1e-6)
            assert group.score == {"best": group.best, "mean": group.mean}[by]
            assert group.entries == entries
            assert len(group.examples) == min(2, entries)
            assert group.examples[0].score == group.best


def test_a_person_with_many_entries_does_not_hide_other_persons() -> None:
    """The nearest thousand entries belong to one person; the search must go deeper to find the others."""
    gallery = GalleryIndex(DIM)
    query = unit(1)[0]
    near = query + 0.01 * unit(2, 1000)
    far = unit(3, 3)
    vectors = np.concatenate([near, far])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metadata = [NewEntry(person) for person in ["crowd"] * 1000 + ["x", "y", "z"]]
    gallery.add(range(1, 1004), metadata, vectors.astype(np.float32))
    found = gallery.search_persons(query[None], 4, Filter(has_person=True), Grouping("best", 1))
    assert found[0].person_id == "crowd"
    assert {person.person_id for person in found} == {"crowd", "x", "y", "z"}


def test_searches_run_during_additions_and_removals() -> None:
    gallery = GalleryIndex(DIM)
    gallery.add([1], [NewEntry("keep", "c1")], unit(0))
    stop, failures = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            best = gallery.search([unit(0)], 1, Filter())[0][0]
            if best.entry_id != 1:
                failures.append(best)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        ids = list(range(2 + 50 * turn, 52 + 50 * turn))
        gallery.add(ids, [NewEntry("other", "c2")] * 50, unit(1000 + turn, 50))
        gallery.remove(ids[:45])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(gallery) == 501


def test_memory_holds_no_data_of_a_person_without_entries() -> None:
    gallery = GalleryIndex(DIM)
    vectors = unit(5, 4)

    def held() -> bytes:
        return pickle.dumps([vars(gallery.segment.metadata), gallery.segment.exact.vectors(np.arange(4))])

    metadata = [
        NewEntry(name, None, 10**15 + n, '{"badge": 4711}') for n, name in enumerate(["ann", "ben", "ann", "cat"])
    ]
    gallery.add([1, 2, 3, 4], metadata, vectors)
    digests = gallery.segment.metadata._attributes._hashes.values.tolist()
    gallery.remove([1])
    gallery.update_metadata(4, NewEntry("dan"))
    assert b"ann" in held()  # the third entry is hers as well
    assert b"cat" not in held()
    gallery.remove([3])
    assert b"ann" not in held()
    assert [vector.tobytes() in held() for vector in vectors] == [False, True, False, True]
    assert [np.int64(10**15 + n).tobytes() in held() for n in range(4)] == [False, True, False, False]
    assert len(set(digests)) == 1  # all four had the same badge; only one entry is left with it
    assert gallery.segment.metadata._attributes._hashes.values.tolist().count(digests[0]) == 1
    assert b"4711" not in held()
    gallery.add([5, 6], [NewEntry("ann"), NewEntry("eve")], unit(6, 2))  # a name may return after it was dropped
    groups = gallery.search_persons(vectors[1:2], 9, Filter(has_person=True), Grouping("best", 1))
    assert {group.person_id: group.examples[0].entry_id for group in groups} == {"ben": 2, "dan": 4, "ann": 5, "eve": 6}
    assert groups[0].person_id == "ben"
