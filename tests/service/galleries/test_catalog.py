"""Galleries on a SQLite file, against a dictionary and brute force: random sequences of calls and restarts."""

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.core.errors import Conflict, InvalidRequest, NotFound
from service.core.models import NewEntry
from service.galleries.commands import IdempotencyKey
from service.galleries.enrolment_results import Batch
from service.index.metadata import Filter
from tests.service.galleries.store import DIM, Store

PERSONS = st.sampled_from([None, "ann", "ben"])
CAMERAS = st.sampled_from([None, "c1", "c2"])
NAMES = st.sampled_from(["lobby", "garage"])
KNOWN = st.lists(st.tuples(PERSONS, CAMERAS), min_size=1, max_size=5)


@dataclass(frozen=True)
class Kept:
    person: str | None
    camera: str | None
    vector: np.ndarray


class Machine(RuleBasedStateMachine):
    """`truth` is the expected content: name -> entry id -> entry."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._random = np.random.default_rng(0)
        self.truth: dict[str, dict[int, Kept]] = {}
        self.keys: dict[tuple[str, str], tuple[list[int], list[tuple[str | None, str | None]]]] = {}
        self.last = 0  # the greatest id so far
        self.start()

    def start(self) -> None:
        async def load() -> None:
            self.store = Store(Path(self._folder.name))
            await self.store.catalog.load()

        self._runner.run(load())

    def do(self, call: Any) -> Any:
        return self._runner.run(call)

    def vectors(self, count: int) -> np.ndarray:
        """Different unit vectors, so that no scores are equal."""
        vectors = self._random.normal(size=(count, DIM))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    @rule()
    def restart(self) -> None:
        self.store.database.close()
        self.start()

    @rule(name=NAMES)
    def create_gallery(self, name: str) -> None:
        call = self.store.create(name)
        if name in self.truth:
            with pytest.raises(Conflict):
                self.do(call)
        else:
            self.do(call)
            self.truth[name] = {}

    @rule(name=NAMES)
    def delete_gallery(self, name: str) -> None:
        if name not in self.truth:
            with pytest.raises(NotFound):
                self.do(self.store.delete(name))
            return
        assert self.do(self.store.delete(name)).entries == len(self.truth.pop(name))
        self.keys = {key: answer for key, answer in self.keys.items() if key[0] != name}

    @rule(name=NAMES, known=KNOWN, key=st.sampled_from([None, "k1", "k2"]))
    def enrol(self, name: str, known: list[tuple[str | None, str | None]], key: str | None) -> None:
        vectors = self.vectors(len(known))
        if name not in self.truth:
            with pytest.raises(NotFound):
                self.store.catalog.find(name)
            return
        call = self.store.enrol_vectors(
            name,
            [NewEntry(person, camera) for person, camera in known],
            vectors,
            None if key is None else IdempotencyKey(key, str(known)),
        )
        if key is not None and (name, key) in self.keys:
            ids, earlier = self.keys[name, key]
            if earlier == known:
                assert self.do(call) == Batch(len(ids), first_id=ids[0])
            else:
                with pytest.raises(InvalidRequest):
                    self.do(call)
            return
        batch = self.do(call)
        ids = list(range(batch.first_id, batch.first_id + len(known)))
        assert ids[0] > self.last  # ids are not reused, not even after a restart
        self.last = ids[-1]
        if key is not None:
            self.keys[name, key] = (ids, known)
        for id_, (person, camera), vector in zip(ids, known, vectors, strict=True):
            self.truth[name][id_] = Kept(person, camera, vector)

    @precondition(lambda self: self.last)
    @rule(name=NAMES, choice=st.integers(0, 10**6))
    def delete_entry(self, name: str, choice: int) -> None:
        id_ = choice % self.last + 1
        call = self.store.delete_entry(name, id_)
        if id_ in self.truth.get(name, {}):
            self.do(call)
            del self.truth[name][id_]
        else:
            with pytest.raises(NotFound):
                self.do(call)

    @precondition(lambda self: self.last)
    @rule(name=NAMES, choice=st.integers(0, 10**6), person=PERSONS, camera=CAMERAS)
    def update_metadata(self, name: str, choice: int, person: str | None, camera: str | None) -> None:
        id_ = choice % self.last + 1
        call = self.store.update(name, id_, person_id=person, camera_id=camera)
        if id_ in self.truth.get(name, {}):
            self.do(call)
            self.truth[name][id_] = replace(self.truth[name][id_], person=person, camera=camera)
        else:
            with pytest.raises(NotFound):
                self.do(call)

    @rule(name=NAMES, person=st.sampled_from(["ann", "ben"]))
    def erase(self, name: str, person: str) -> None:
        theirs = [id_ for id_, kept in self.truth.get(name, {}).items() if kept.person == person]
        call = self.store.erase(name, person)
        if theirs:
            receipt = self.do(call)
            assert (receipt.entries, receipt.overwritten) == (len(theirs), True)
            for id_ in theirs:
                del self.truth[name][id_]
        else:
            with pytest.raises(NotFound):
                self.do(call)

    @invariant()
    def lists_are_the_truth(self) -> None:
        assert [held.row.name for held in self.store.catalog.all()] == sorted(self.truth)
        for name, kept in self.truth.items():
            rows = self.do(self.store.rows(name))
            assert [(row.id, row.person_id, row.camera_id) for row in rows] == [
                (id_, entry.person, entry.camera) for id_, entry in sorted(kept.items())
            ]
            people = {entry.person for entry in kept.values()} - {None}
            memory = self.store.catalog.find(name).memory
            assert (len(memory), memory.persons) == (len(kept), len(people))

    @invariant()
    def searches_are_brute_force(self) -> None:
        query = self.vectors(1)[0]
        for name, kept in self.truth.items():
            for where, allowed in [
                (Filter(), set(kept)),
                (Filter(cameras=frozenset({"c1"})), {id_ for id_, entry in kept.items() if entry.camera == "c1"}),
            ]:
                truth = sorted((-float(kept[id_].vector @ query), id_) for id_ in allowed)[:7]
                hits = self.store.catalog.find(name).memory.search([query[None]], 7, where)[0]
                assert [hit.entry_id for hit in hits] == [id_ for _, id_ in truth]
                np.testing.assert_allclose([-hit.score for hit in hits], [score for score, _ in truth], atol=1e-6)

    def teardown(self) -> None:
        self.store.database.close()
        self._runner.close()
        self._folder.cleanup()


Machine.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestGalleries = Machine.TestCase
