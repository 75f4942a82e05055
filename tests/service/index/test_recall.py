"""The measured recall: of queries that the index does not hold, and kept up while a gallery changes."""

from typing import Any

import numpy as np
import pytest

from service.galleries.management import index_status
from service.galleries.results import IndexStatus
from service.index import recall
from service.index.choice import AnnKind
from service.index.recall import RECALL_TARGETS
from service.workers import index_builder
from tests.support.galleries import IndexRig, OpenRig, recall_at_10

DIM = 96
KINDS: list[AnnKind] = ["hnsw", "ivf_sq8", "ivf_pq"]
LOWEST = RECALL_TARGETS[10] - 0.01  # the measurement had other queries


def crops(count: int, seed: int, camera: int = 0) -> np.ndarray:
    """(count, DIM) unit vectors in a subspace of 40 dimensions, which differs between cameras."""
    basis, _ = np.linalg.qr(np.random.default_rng(camera).normal(size=(DIM, 40)))
    vectors = np.random.default_rng([seed, camera]).normal(size=(count, 40)) @ basis.T
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def isotropic(count: int, seed: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def status(rig: IndexRig) -> IndexStatus:
    """The state of the index that a response shows."""
    return index_status(rig.index)


@pytest.fixture(autouse=True)
def early_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is extended after 400 new entries of DIM dimensions."""
    monkeypatch.setattr(index_builder, "_TAIL", 400 * DIM)


@pytest.fixture
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures with a quarter of the queries, which takes a quarter of the time."""
    monkeypatch.setattr(recall, "_QUERIES", 32)
    monkeypatch.setattr(recall, "_NEWEST_QUERIES", 16)


@pytest.mark.usefixtures("few_queries")
@pytest.mark.parametrize("kind", KINDS)
def test_entries_of_a_new_camera_are_found_at_any_time(
    open_rig: OpenRig, kind: AnnKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(kind, DIM)
    old = rig.enrol(crops(2100, seed=1))
    rig.maintain()
    assert not status(rig).exact
    queries = np.concatenate([crops(30, seed=9, camera=camera) for camera in (0, 1)])

    def check() -> None:
        assert recall_at_10(rig, queries[:30]) >= LOWEST
        assert recall_at_10(rig, queries[30:]) >= LOWEST

    measure = index_builder.measure

    def checked_measure(*arguments: Any) -> Any:
        check()  # at this time the index holds entries that no measurement covers
        return measure(*arguments)

    monkeypatch.setattr(index_builder, "measure", checked_measure)
    actions = set()
    for part in range(2):
        rig.enrol(crops(500, seed=20 + part, camera=1))
        check()
        while action := rig.maintain_once():
            check()
            actions.add(action)
    assert {"extended", "trained"} <= actions
    assert not status(rig).exact  # the new index knows both cameras
    rig.delete(old)
    rig.enrol(crops(1300, seed=30, camera=1))
    check()
    while rig.maintain_once():
        check()
    rig = open_rig(kind, DIM)
    rig.maintain()
    check()
    assert not status(rig).exact


@pytest.mark.parametrize("kind", KINDS)
def test_the_reported_recall_is_that_of_queries_outside_the_gallery(open_rig: OpenRig, kind: AnnKind) -> None:
    rig = open_rig(kind, 48)
    before = rig.galleries.clock()
    rig.enrol(isotropic(3000, seed=1, dim=48))
    rig.maintain()
    now = status(rig)
    assert (now.kind, now.entries, now.exact) == (kind, 3000, False)
    assert (now.queries, now.queries_recent) == (128, 64)
    assert now.measured_at is not None
    assert before <= now.measured_at <= rig.galleries.clock()
    assert now.recall >= RECALL_TARGETS[10]
    assert now.recall == pytest.approx(recall_at_10(rig, isotropic(300, seed=2, dim=48)), abs=0.01)


@pytest.mark.usefixtures("few_queries")
def test_below_its_target_recall_an_index_is_not_used(open_rig: OpenRig) -> None:
    """No projection to 256 dimensions preserves the neighbours of isotropic vectors in 400 dimensions."""
    rig = open_rig("ivf_sq8", 400)
    rig.enrol(isotropic(2100, seed=1, dim=400))
    assert rig.maintain() == {"trained"}
    now = status(rig)
    assert now.exact
    assert 0.0 < now.recall < RECALL_TARGETS[10]
    assert recall_at_10(rig, isotropic(30, seed=2, dim=400)) == 1.0
    assert rig.maintain() == set()  # it is not trained again without changes
    rig.enrol(isotropic(100, seed=3, dim=400))
    assert rig.maintain() == {"trained"}
    rig.enrol(isotropic(40, seed=4, dim=400))
    assert rig.maintain() == set()  # each training without success postpones the next


@pytest.mark.usefixtures("few_queries")
def test_an_index_is_trained_again_after_half_of_its_entries_are_deleted(open_rig: OpenRig) -> None:
    rig = open_rig("ivf_sq8", DIM)
    ids = rig.enrol(crops(2400, seed=1))
    rig.maintain()
    actions: list[set[str]] = []
    for part in range(6):
        ids += rig.enrol(crops(300, seed=10 + part))
        rig.delete(ids[:300])
        del ids[:300]
        actions.append(rig.maintain())
        assert recall_at_10(rig, crops(60, seed=9)) >= LOWEST
        assert len(rig.index) == 2400
    trained = [part for part, done in enumerate(actions) if "trained" in done]
    assert trained == [4]  # after 1,500 of 2,400


@pytest.mark.usefixtures("few_queries")
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_restored_index_is_measured_before_it_is_used(open_rig: OpenRig, kind: AnnKind) -> None:
    rig = open_rig(kind, DIM)
    rig.enrol(crops(2100, seed=1))
    rig.maintain()
    first = status(rig).measured_at
    assert first is not None
    rig = open_rig(kind, DIM)
    assert rig.maintain() == {"restored"}
    second = status(rig).measured_at
    assert second is not None
    assert second > first
    rig.enrol(crops(1000, seed=2, camera=1))
    rig = open_rig(kind, DIM)  # the service restarts before maintenance has seen these entries
    assert rig.maintain_once() == "restored"
    assert status(rig).exact
    assert status(rig).recall_recent < RECALL_TARGETS[10]
    assert recall_at_10(rig, crops(60, seed=9, camera=1)) == 1.0
    assert rig.maintain() == {"trained"}
    assert not status(rig).exact
    assert recall_at_10(rig, crops(60, seed=9, camera=1)) >= LOWEST


def test_duplicate_entries_do_not_lower_the_recall(open_rig: OpenRig) -> None:
    rig = open_rig("ivf_sq8", DIM)
    rig.enrol(np.repeat(crops(150, seed=1), 20, axis=0))
    rig.maintain()
    assert not status(rig).exact
    assert status(rig).recall == 1.0


@pytest.mark.usefixtures("few_queries")
@pytest.mark.parametrize("kind", KINDS[:2])
def test_deletions_cause_a_new_measurement(open_rig: OpenRig, kind: AnnKind) -> None:
    rig = open_rig(kind, DIM)
    ids = rig.enrol(crops(2600, seed=1))
    rig.maintain()
    first = status(rig).measured_at
    assert first is not None
    rig.delete(ids[::40])
    assert rig.maintain() == {"measured"}
    second = status(rig).measured_at
    assert second is not None
    assert second > first
    assert status(rig).entries == 2600 - 65
