"""Approximate indexes against brute force: results, filters, changes and deletion."""

import threading
from typing import Any

import faiss
import numpy as np
import pytest

from service.index.choice import AnnKind
from service.index.metadata import Filter
from tests.support.galleries import OpenRig, clustered, recall_at_10

ROWS = 2500
KINDS: list[AnnKind] = ["hnsw", "ivf_sq8", "ivf_pq"]
QUERIES = clustered(50, seed=7)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_agrees_with_brute_force_after_every_change(open_rig: OpenRig, kind: AnnKind) -> None:
    rig = open_rig(kind)
    ids = rig.enrol(clustered(ROWS))
    assert rig.segment.ann is None
    assert recall_at_10(rig, QUERIES) == 1.0  # without an index searches are exact
    assert rig.maintain() == {"trained"}
    index = rig.segment.ann
    assert index is not None
    assert (index.kind, len(index)) == (kind, ROWS)
    assert index.measured is not None
    assert index.measured.recall >= 0.996
    assert recall_at_10(rig, QUERIES) >= 0.98
    assert recall_at_10(rig, QUERIES, Filter(cameras=frozenset({"c3"})), among=ids[3::10]) >= 0.98

    rig.delete(ids[::3])
    rig.enrol(clustered(300, seed=5))
    assert recall_at_10(rig, QUERIES) >= 0.98  # rows that the index lacks are searched exactly
    assert "compacted" in rig.maintain()
    assert (rig.segment.metadata.deleted_count, len(rig.index)) == (0, ROWS - len(ids[::3]) + 300)
    assert recall_at_10(rig, QUERIES) >= 0.98


def test_a_filter_that_keeps_only_distant_rows_is_answered(open_rig: OpenRig) -> None:
    rig = open_rig("ivf_sq8")
    vectors = clustered(ROWS)
    ids = rig.enrol(vectors)
    rig.maintain()
    order = np.argsort(vectors @ vectors[0])
    distant = [ids[row] for row in order[:300]]  # more than a tenth of all rows, and none of them near the query
    excluded = frozenset(ids) - frozenset(distant)
    assert recall_at_10(rig, vectors[:1], Filter(exclude_entries=excluded), among=distant) == 1.0


def test_a_filter_that_keeps_only_newer_rows_than_the_index_is_answered(open_rig: OpenRig) -> None:
    rig = open_rig("ivf_sq8")
    old = rig.enrol(clustered(ROWS))
    rig.maintain()
    new = rig.enrol(clustered(12, seed=5))
    assert recall_at_10(rig, QUERIES[:1], Filter(exclude_entries=frozenset(old)), among=new) == 1.0


@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_code_of_a_deleted_vector_is_overwritten(open_rig: OpenRig, kind: AnnKind) -> None:
    rig = open_rig(kind)
    ids = rig.enrol(clustered(ROWS))
    rig.maintain()
    index: Any = rig.segment.ann
    inner = index._inner
    indexed = np.flatnonzero(index.holds(ROWS))
    rows = indexed[[5, 70, -1]].tolist()

    def codes() -> dict[int, bytes]:
        """The code of each of these rows that is in the index."""
        if kind == "hnsw":
            size = inner._codes.code_size
            data = memory(inner._codes.codes.data(), inner._codes.ntotal * size)
            return {row: data[node * size : (node + 1) * size] for node, row in enumerate(inner.rows) if row in rows}
        found = {}
        lists, size = inner._faiss.invlists, inner._faiss.code_size
        for number in range(inner._faiss.nlist):
            if length := lists.list_size(number):
                numbers = np.frombuffer(memory(lists.get_ids(number), length), np.int64).tolist()
                data = memory(lists.get_codes(number), length * size)
                found |= {row: data[at * size : (at + 1) * size] for at, row in enumerate(numbers)}
        return {row: found[row] for row in rows if row in found}

    before = codes()
    assert len(set(before.values())) == len(rows)
    rig.delete([ids[row] for row in rows])
    after = codes()
    if kind == "hnsw":  # the nodes stay, with the code of the zero vector
        assert len(set(after.values())) == 1
        assert set(after.values()).isdisjoint(before.values())
    else:
        assert after == {}
        sizes = [inner._faiss.invlists.list_size(number) for number in range(inner._faiss.nlist)]
        assert sum(sizes) == len(indexed) - len(rows)


def memory(pointer: Any, count: int) -> bytes:
    return bytes(faiss.rev_swig_ptr(pointer, count).tobytes())


def test_searches_and_changes_continue_during_maintenance(open_rig: OpenRig) -> None:
    rig = open_rig("ivf_sq8")
    vectors = clustered(ROWS)
    ids = rig.enrol(vectors)
    stop, faults = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            best = rig.search(vectors[1])[0]
            if best.entry_id != ids[1] or best.score < 0.999:
                faults.append(best)

    searching = threading.Thread(target=search)
    searching.start()
    maintaining = threading.Thread(target=rig.maintain)
    maintaining.start()
    for start in range(2, 2002, 100):
        rig.delete(ids[start : start + 100])
        rig.enrol(clustered(70, seed=start))
    maintaining.join()
    rig.maintain()
    stop.set()
    searching.join()
    assert not faults
    assert len(rig.index) == ROWS - 2000 + 1400
    assert recall_at_10(rig, QUERIES) >= 0.98
