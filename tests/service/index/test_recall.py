"""The recall of an index: measured on what it does not hold, and never lost unnoticed when a gallery changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pan_reid.schemas.galleries import IndexStatus
from service.api.routes.galleries import index_view
from service.index.choice import AnnKind
from service.index.recall import RECALL_TARGETS
from service.workers import index_maintenance as upkeep
from tests.support.galleries import Place, near_brute_force

DIM = 96
KINDS: list[AnnKind] = ["hnsw", "ivf_sq8", "ivf_pq"]
LEAST = RECALL_TARGETS[10] - 0.01  # by some other queries than those of the measurement


def crops(count: int, seed: int, camera: int = 0) -> np.ndarray:
    """(count, DIM) unit vectors in 40 dimensions, which are others for another camera."""
    basis, _ = np.linalg.qr(np.random.default_rng(camera).normal(size=(DIM, 40)))
    vectors = np.random.default_rng([seed, camera]).normal(size=(count, 40)) @ basis.T
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def isotropic(count: int, seed: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens the data folder; an index is extended by 400 entries of DIM numbers."""
    monkeypatch.setattr(upkeep, "_TAIL", 400 * DIM)
    opened: list[Place] = []

    def open_place(kind: Any, dim: int = DIM) -> Place:
        for earlier in opened:
            earlier.database.close()
        opened.append(Place(tmp_path, kind, dim))
        return opened[-1]

    yield open_place
    opened[-1].database.close()


def shown(here: Place) -> IndexStatus:
    """What the API shows of the index."""
    return IndexStatus.model_validate(index_view(here.memory))


@pytest.mark.parametrize("kind", KINDS)
def test_entries_of_a_new_camera_are_found_at_every_moment(
    place: Any, kind: AnnKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place(kind)
    old = here.enrol(crops(2500, seed=1))
    here.run_once()
    assert not shown(here).exact
    queries = {camera: crops(60, seed=9, camera=camera) for camera in (0, 1)}

    def check(*_: object) -> None:
        for camera in (0, 1):
            assert near_brute_force(here, queries[camera]) >= LEAST

    measure = upkeep.measure

    def checked_measure(*work: Any) -> Any:
        check()  # the index holds entries by now that it was not measured with
        return measure(*work)

    monkeypatch.setattr(upkeep, "measure", checked_measure)
    done = set()
    for part in range(3):
        here.enrol(crops(500, seed=20 + part, camera=1))
        check()
        while what := here.tend_once():
            check()
            done.add(what)
    assert {"extended", "trained"} <= done
    assert not shown(here).exact  # there is an index again that knows both cameras
    here.delete(old)
    here.enrol(crops(2000, seed=30, camera=1))
    check()
    while here.tend_once():
        check()
    here = place(kind)
    here.run_once()
    check()
    assert not shown(here).exact


@pytest.mark.parametrize("kind", KINDS)
def test_the_recall_shown_is_that_of_queries_that_are_not_in_the_gallery(place: Any, kind: AnnKind) -> None:
    here = place(kind, 48)
    before = here.galleries.clock()
    here.enrol(isotropic(4000, seed=1, dim=48))
    here.run_once()
    now = shown(here)
    assert (now.kind, now.entries, now.exact) == (kind, 4000, False)
    assert (now.queries, now.queries_recent) == (128, 64)
    assert now.measured_at is not None
    assert before <= now.measured_at.timestamp() * 1e6 <= here.galleries.clock()
    assert now.recall >= RECALL_TARGETS[10]
    assert now.recall == pytest.approx(near_brute_force(here, isotropic(500, seed=2, dim=48)), abs=0.01)


def test_an_index_below_its_target_is_shown_and_searched_exactly(place: Any) -> None:
    """No projection to 256 dimensions keeps neighbours of vectors that are spread alike over 400."""
    here = place("ivf_sq8", 400)
    here.enrol(isotropic(2100, seed=1, dim=400))
    assert here.run_once() == {"trained"}
    now = shown(here)
    assert now.exact
    assert 0.0 < now.recall < RECALL_TARGETS[10]
    assert near_brute_force(here, isotropic(50, seed=2, dim=400)) == 1.0
    assert here.run_once() == set()  # it is not trained again and again
    here.enrol(isotropic(100, seed=3, dim=400))
    assert here.run_once() == {"trained"}
    here.enrol(isotropic(40, seed=4, dim=400))
    assert here.run_once() == set()  # the less often the less it helps


def test_an_index_is_trained_anew_when_half_of_what_it_knew_is_gone(place: Any) -> None:
    here = place("ivf_sq8")
    ids = here.enrol(crops(2400, seed=1))
    here.run_once()
    done: list[set[str]] = []
    for part in range(6):
        ids += here.enrol(crops(300, seed=10 + part))
        here.delete(ids[:300])
        del ids[:300]
        done.append(here.run_once())
        assert near_brute_force(here, crops(100, seed=9)) >= LEAST
        assert len(here.memory) == 2400
    trained = [part for part, what in enumerate(done) if "trained" in what]
    assert trained == [4]  # 1,500 of 2,400


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_restored_index_is_measured_before_it_answers(place: Any, kind: AnnKind) -> None:
    here = place(kind)
    here.enrol(crops(2500, seed=1))
    here.run_once()
    first = shown(here).measured_at
    here = place(kind)
    assert here.run_once() == {"restored"}
    assert shown(here).measured_at > first
    here.enrol(crops(1000, seed=2, camera=1))  # and the service ends before upkeep sees them
    here = place(kind)
    assert here.tend_once() == "restored"
    assert shown(here).exact
    assert shown(here).recall_recent < RECALL_TARGETS[10]
    assert near_brute_force(here, crops(100, seed=9, camera=1)) == 1.0
    assert here.run_once() == {"trained"}
    assert not shown(here).exact
    assert near_brute_force(here, crops(100, seed=9, camera=1)) >= LEAST


def test_many_entries_alike_do_not_pass_for_entries_that_are_not_found(place: Any) -> None:
    here = place("ivf_sq8")
    here.enrol(np.repeat(crops(150, seed=1), 20, axis=0))
    here.run_once()
    assert not shown(here).exact
    assert shown(here).recall == 1.0


@pytest.mark.parametrize("kind", KINDS[:2])
def test_deletions_call_for_another_measurement(place: Any, kind: AnnKind) -> None:
    here = place(kind)
    ids = here.enrol(crops(4000, seed=1))
    here.run_once()
    first = shown(here).measured_at
    here.delete(ids[::40])
    assert here.run_once() == {"measured"}
    assert shown(here).measured_at > first
    assert shown(here).entries == 3900
