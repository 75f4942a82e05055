"""The gallery in memory against brute force: every search, with every filter, after any history."""

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.columns import Filter
from service.gallery import Gallery

DIM = 8
PERSONS = [None, "ann", "ben", "cat"]
CAMERAS = [None, "c1", "c2", "c3"]


def unit(seed: int | tuple[int, int], count: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Model:
    """What a gallery is: a dictionary, searched by looking at everything."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[str | None, str | None, np.ndarray]] = {}

    def allowed(self, where: Filter) -> list[int]:
        kept = []
        for entry, (person, camera, _) in self.entries.items():
            if where.cameras is not None and camera not in where.cameras:
                continue
            if camera in where.exclude_cameras:
                continue
            if where.exclude_person_at_camera == (person, camera) or entry == where.exclude_entry:
                continue
            if where.named and person is None:
                continue
            kept.append(entry)
        return kept

    def search(self, query: np.ndarray, top_k: int, where: Filter) -> list[tuple[int, float]]:
        scored = [(entry, float(self.entries[entry][2] @ query)) for entry in self.allowed(where)]
        return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:top_k]

    def persons(self, query: np.ndarray, top_k: int, where: Filter) -> list[tuple[str, float, float, int]]:
        scores: dict[str, list[float]] = {}
        for entry, score in self.search(query, len(self.entries), where):
            person = self.entries[entry][0]
            if person is not None:
                scores.setdefault(person, []).append(score)
        groups = [(person, max(own), sum(own) / len(own), len(own)) for person, own in scores.items()]
        return sorted(groups, key=lambda group: -group[1])[:top_k]


filters = st.builds(
    Filter,
    cameras=st.none() | st.frozensets(st.sampled_from(["c1", "c2", "c3", "nowhere"])),
    exclude_cameras=st.frozensets(st.sampled_from(["c1", "c2", "nowhere"])),
    exclude_person_at_camera=st.none() | st.tuples(st.sampled_from(["ann", "ben"]), st.sampled_from(["c1", "c2"])),
    exclude_entry=st.none() | st.integers(1, 400),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 120), st.integers(0, 10**6)),
        st.tuples(st.just("remove"), st.integers(1, 90), st.integers(0, 10**6)),
        st.tuples(st.just("relabel"), st.integers(1, 5), st.integers(0, 10**6)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, where=filters, top_k=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_any_history_and_filter_answers_as_brute_force(
    steps: list[tuple[str, int, int]], where: Filter, top_k: int, seed: int
) -> None:
    gallery, model, last = Gallery(DIM), Model(), 0
    for kind, count, step_seed in steps:
        rng = np.random.default_rng(step_seed)
        if kind == "add":
            ids = list(range(last + 1, last + 1 + count))
            last += count
            persons = [PERSONS[i] for i in rng.integers(0, len(PERSONS), count)]
            cameras = [CAMERAS[i] for i in rng.integers(0, len(CAMERAS), count)]
            vectors = unit((step_seed, last), count)  # never twice the same: ties have no order to compare
            gallery.add(ids, persons, cameras, vectors)
            model.entries |= {
                id_: row
                for id_, *row in zip(ids, persons, cameras, vectors, strict=True)  # type: ignore[misc]
            }
        elif model.entries:
            chosen = rng.choice(sorted(model.entries), size=min(count, len(model.entries)), replace=False).tolist()
            if kind == "remove":
                gallery.remove(chosen)
                for id_ in chosen:
                    del model.entries[id_]
            else:
                for id_ in chosen:
                    gallery.relabel(id_, "ann", "c3")
                    model.entries[id_] = ("ann", "c3", model.entries[id_][2])
    assert len(gallery) == len(model.entries)
    queries = unit(seed, 5)
    for query, hits in zip(queries, gallery.search(queries, top_k, where), strict=True):
        truth = model.search(query, top_k, where)
        assert sorted(hit.entry_id for hit in hits) == sorted(entry for entry, _ in truth)
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in truth], atol=1e-6)
    named = Filter(**{**{name: getattr(where, name) for name in Filter.__dataclass_fields__}, "named": True})
    groups = gallery.search_persons(queries[0], min(top_k, 3), named, examples=2)
    truth_groups = model.persons(queries[0], min(top_k, 3), where)
    assert [group.person_id for group in groups] == [person for person, *_ in truth_groups]
    for group, (_, best, mean, count) in zip(groups, truth_groups, strict=True):
        assert (group.best, group.mean) == pytest.approx((best, mean), abs=1e-6)
        assert group.entries == count
        assert len(group.examples) == min(2, count)
        assert group.examples[0].score == group.best


def test_people_with_many_entries_do_not_hide_the_others() -> None:
    """The nearest thousand entries are one person's; the second person must still be found."""
    gallery = Gallery(DIM)
    query = unit(1)[0]
    near = query + 0.01 * unit(2, 1000)
    far = unit(3, 3)
    vectors = np.concatenate([near, far])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery.add(range(1, 1004), ["crowd"] * 1000 + ["x", "y", "z"], [None] * 1003, vectors.astype(np.float32))
    found = gallery.search_persons(query, 4, Filter(named=True), examples=1)
    assert found[0].person_id == "crowd"
    assert {person.person_id for person in found} == {"crowd", "x", "y", "z"}


def test_searches_go_on_beside_adds_and_removals() -> None:
    gallery = Gallery(DIM)
    gallery.add([1], ["keep"], ["c1"], unit(0))
    stop, failures = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            best = gallery.search(unit(0), 1, Filter())[0][0]
            if best.entry_id != 1:
                failures.append(best)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        ids = list(range(2 + 50 * turn, 52 + 50 * turn))
        gallery.add(ids, ["other"] * 50, ["c2"] * 50, unit(1000 + turn, 50))
        gallery.remove(ids[:45])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(gallery) == 501


def test_nothing_of_a_person_stays_in_memory_who_has_no_entry_left() -> None:
    gallery = Gallery(DIM)
    vectors = unit(5, 4)
    gallery.add([1, 2, 3, 4], ["ann", "ben", "ann", "cat"], [None] * 4, vectors)
    gallery.remove([1])
    gallery.relabel(4, "dan", None)
    held = pickle.dumps([vars(gallery._columns), gallery._index.vectors(np.arange(4))])
    assert b"ann" in held  # of the third entry
    assert b"cat" not in held
    gallery.remove([3])
    held = pickle.dumps([vars(gallery._columns), gallery._index.vectors(np.arange(4))])
    assert b"ann" not in held
    assert [vector.tobytes() in held for vector in vectors] == [False, True, False, True]
    gallery.add([5, 6], ["ann", "eve"], [None] * 2, unit(6, 2))  # a name that comes back is a name like any other
    groups = gallery.search_persons(vectors[1], 9, Filter(named=True), examples=1)
    assert {group.person_id: group.examples[0].entry_id for group in groups} == {"ben": 2, "dan": 4, "ann": 5, "eve": 6}
    assert groups[0].person_id == "ben"
