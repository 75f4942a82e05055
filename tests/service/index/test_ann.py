"""AnnIndex indexes against brute force: what they find, what changes under them, and what a start finds again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from pan_reid.schemas import IndexKind
from service.index.choice import AnnKind, choose_kind
from service.index.exact import ExactIndex
from service.index.metadata import Filter
from service.storage import galleries as gallery_records
from service.workers.index_maintenance import _lower_priority
from tests.support.galleries import ANYTHING, Place

DIM = 32
ROWS = 6000
KINDS: list[AnnKind] = ["hnsw", "ivf_sq8", "ivf_pq"]


def people(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors like those of crops: some persons, many crops of each, most of what differs in a few dimensions."""
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(DIM) / 8)
    centres = np.random.default_rng(99).normal(size=(300, DIM)) * spread
    vectors = centres[rng.integers(0, 300, count)] + 0.5 * rng.normal(size=(count, DIM)) * spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path) -> Any:
    opened: list[Place] = []

    def open_place(kind: IndexKind) -> Place:
        for earlier in opened:
            earlier.database.close()
        opened.append(Place(tmp_path, kind, DIM))
        return opened[-1]

    yield open_place
    opened[-1].database.close()


def brute(ids: list[int], vectors: np.ndarray, query: np.ndarray, top_k: int = 10) -> list[tuple[int, float]]:
    scores = vectors.astype(np.float64) @ query
    return [(ids[row], scores[row]) for row in np.argsort(-scores)[:top_k]]


def recall(place: Place, ids: list[int], vectors: np.ndarray, where: Filter = ANYTHING) -> float:
    """Share of the true ten nearest that fifty new queries find; every score must be the true one."""
    found = 0
    of_id = {entry: vector.astype(np.float64) for entry, vector in zip(ids, vectors, strict=True)}
    for query in people(50, seed=7):
        hits = place.search(query, where)
        assert len(hits) == 10
        for hit in hits:
            assert hit.score == pytest.approx(of_id[hit.entry_id] @ query, abs=1e-5)
        found += len({hit.entry_id for hit in hits} & {entry for entry, _ in brute(ids, vectors, query)})
    return found / 500


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_what_brute_force_finds_through_every_change(place: Any, kind: AnnKind) -> None:
    here = place(kind)
    vectors = people(ROWS)
    ids = here.enrol(vectors)
    assert here.memory.segment.ann is None  # searched exactly until the index is there
    assert recall(here, ids, vectors) == 1.0
    assert here.run_once() == {"trained"}
    approximate = here.memory.segment.ann
    assert (approximate.kind, len(approximate)) == (kind, ROWS)
    assert approximate.measured.recall >= 0.996
    assert recall(here, ids, vectors) >= 0.98
    tenth = [row for row in range(ROWS) if row % 10 == 3]
    assert recall(here, [ids[row] for row in tenth], vectors[tenth], Filter(cameras=frozenset({"c3"}))) >= 0.98

    gone = list(range(0, ROWS, 3))
    here.delete([ids[row] for row in gone])
    more = people(500, seed=5)
    new = here.enrol(more)
    left = [row for row in range(ROWS) if row % 3]
    ids, vectors = [ids[row] for row in left] + new, np.vstack([vectors[left], more])
    assert recall(here, ids, vectors) >= 0.98  # the newest are searched beside the index
    assert "compacted" in here.run_once()
    assert (here.memory.segment.metadata.deleted_count, len(here.memory)) == (0, len(ids))
    assert recall(here, ids, vectors) >= 0.98


def test_a_filter_that_keeps_only_what_is_far_away_is_answered_with_the_best_of_it(place: Any) -> None:
    here = place("ivf_sq8")
    vectors = people(ROWS)
    ids = here.enrol(vectors, cameras=1)
    here.run_once()
    query = vectors[0]
    farthest = np.argsort(vectors @ query)[:700].tolist()  # more than a tenth, and none of it near
    others = frozenset(set(ids) - {ids[row] for row in farthest})
    hits = here.search(query, Filter(exclude_entries=others))
    wanted = brute([ids[row] for row in farthest], vectors[farthest], query)
    assert len({hit.entry_id for hit in hits} & {entry for entry, _ in wanted}) == 10


def test_a_filter_that_keeps_nothing_of_the_index_is_answered_from_what_came_later(place: Any) -> None:
    here = place("ivf_sq8")
    old = here.enrol(people(3000))
    here.run_once()
    vectors = people(4, seed=5)
    new = here.enrol(vectors)
    query = people(1, seed=7)[0]
    hits = here.search(query, Filter(exclude_entries=frozenset(old)))
    assert [hit.entry_id for hit in hits] == [entry for entry, _ in brute(new, vectors, query)]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_nothing_of_a_deleted_vector_stays_in_the_index(place: Any, kind: AnnKind) -> None:
    here = place(kind)
    ids = here.enrol(people(3000))
    here.run_once()
    inner = here.memory.segment.ann._inner
    rows = np.flatnonzero(here.memory.segment.ann.holds(3000))[[5, 70, -1]].tolist()
    count = np.count_nonzero(here.memory.segment.ann.holds(3000))

    def held() -> dict[int, bytes]:
        """What is there of each of these rows."""
        if kind == "hnsw":
            size = inner._codes.code_size
            data = content(inner._codes.codes.data(), inner._codes.ntotal * size)
            return {row: data[node * size : (node + 1) * size] for node, row in enumerate(inner.rows) if row in rows}
        found = {}
        lists, size = inner._faiss.invlists, inner._faiss.code_size
        for number in range(inner._faiss.nlist):
            if length := lists.list_size(number):
                numbers = np.frombuffer(content(lists.get_ids(number), length), np.int64).tolist()
                data = content(lists.get_codes(number), length * size)
                found |= {row: data[at * size : (at + 1) * size] for at, row in enumerate(numbers)}
        return {row: found[row] for row in rows if row in found}

    before = held()
    assert len(set(before.values())) == len(rows)
    here.delete([ids[row] for row in rows])
    after = held()
    if kind == "hnsw":
        assert len(set(after.values())) == 1
        assert set(after.values()).isdisjoint(before.values())
    else:
        assert after == {}
        assert sum(inner._faiss.invlists.list_size(number) for number in range(inner._faiss.nlist)) == count - 3


def content(pointer: Any, count: int) -> bytes:
    return bytes(faiss.rev_swig_ptr(pointer, count).tobytes())


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_start_finds_what_the_index_had_learnt(place: Any, kind: AnnKind) -> None:
    here = place(kind)
    vectors = people(ROWS)
    ids = here.enrol(vectors)
    assert here.run_once() == {"trained"}
    saved = here.folder.glob("*.npz")
    assert not any(vector.tobytes() in file.read_bytes() for file in saved for vector in vectors[::500])
    before = [here.search(query) for query in people(20, seed=3)]
    here = place(kind)
    more = people(200, seed=4)
    ids += here.enrol(more)
    assert here.run_once() == {"restored"}
    assert here.memory.segment.ann.kind == kind
    assert recall(here, ids, np.vstack([vectors, more])) >= 0.98
    here.delete(ids[ROWS:])
    for query, hits in zip(people(20, seed=3), before, strict=True):
        assert len({hit.entry_id for hit in here.search(query)} & {hit.entry_id for hit in hits}) >= 8


def test_a_graph_whose_entries_are_gone_is_built_anew(place: Any) -> None:
    here = place("hnsw")
    ids = here.enrol(people(3000))
    here.run_once()
    here.delete(ids[:5])
    here = place("hnsw")
    assert here.run_once() == {"trained"}
    here.upkeep._snapshots.sweep()
    assert [file.name for file in here.folder.iterdir()] == ["1-2.npz"]


def test_a_saved_graph_does_not_outlive_what_is_deleted_from_it(place: Any) -> None:
    here = place("hnsw")
    ids = here.enrol(people(3000))
    here.run_once()
    assert len(list(here.folder.iterdir())) == 1
    here.delete(ids[:1])
    here.run_once()
    here.upkeep._snapshots.sweep()
    assert list(here.folder.iterdir()) == []


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def older(file: Path) -> None:
    file.write_bytes(b"what another database wrote")


@pytest.mark.parametrize("harm", [damage, older, Path.unlink])
def test_a_snapshot_that_is_not_the_right_one_is_made_anew(place: Any, harm: Any) -> None:
    here = place("ivf_sq8")
    vectors = people(3000)
    ids = here.enrol(vectors)
    here.run_once()
    (file,) = here.folder.iterdir()
    assert file.name == "1-1.npz"
    harm(file)
    here = place("ivf_sq8")
    assert here.run_once() == {"trained"}
    assert recall(here, ids, vectors) >= 0.98
    here.upkeep._snapshots.sweep()
    assert [file.name for file in here.folder.iterdir()] == ["1-2.npz"]


def test_snapshots_of_deleted_galleries_and_broken_writes_are_removed(place: Any) -> None:
    here = place("ivf_sq8")
    here.enrol(people(3000))
    here.run_once()
    (here.folder / "1-2.tmp").write_bytes(b"half")
    (here.folder / "notes.txt").write_bytes(b"not ours")
    here.database.submit_write(lambda db: gallery_records.delete_gallery(db, 1)).result()
    here.upkeep._snapshots.sweep()
    assert [file.name for file in here.folder.iterdir()] == ["notes.txt"]


def test_searches_and_changes_go_on_while_the_index_is_looked_after(place: Any) -> None:
    here = place("ivf_sq8")
    vectors = people(ROWS)
    ids = here.enrol(vectors)
    stop, faults = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            best = here.search(vectors[1])[0]
            if best.entry_id != ids[1] or best.score < 0.999:
                faults.append(best)

    searching = threading.Thread(target=search)
    searching.start()
    kept = dict(zip(ids, vectors, strict=True))
    changing = threading.Thread(target=here.run_once)
    changing.start()
    for start in range(2, 5000, 100):  # half of it before, half beside what upkeep does
        here.delete(ids[start : start + 100])
        for entry in ids[start : start + 100]:
            del kept[entry]
        more = people(20, seed=start)
        kept |= dict(zip(here.enrol(more), more, strict=True))
    changing.join()
    here.run_once()
    stop.set()
    searching.join()
    assert not faults
    assert len(here.memory) == len(kept)
    assert recall(here, list(kept), np.stack(list(kept.values()))) >= 0.98


@pytest.mark.parametrize(
    ("asked", "rows", "dim", "chosen"),
    [
        ("auto", 10_000, 1536, None),
        ("auto", 100_000, 1536, "ivf_sq8"),
        ("auto", 1_000_000, 512, "ivf_sq8"),
        ("flat", 1_000_000, 512, None),
        ("hnsw", 100, 512, None),
        ("ivf_pq", 2_048, 512, "ivf_pq"),
    ],
)
def test_the_kind_follows_the_size_unless_it_is_set(asked: Any, rows: int, dim: int, chosen: str | None) -> None:
    assert choose_kind(asked, rows, dim) == chosen


def test_copies_on_a_gpu_answer_and_keep_nothing_that_is_deleted(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """faiss's calls for a GPU are played by copies on the CPU: what is looked at is when which copy answers."""

    class OnGpu:
        def __init__(self, original: Any) -> None:
            self._faiss = faiss.clone_index(original)
            self.searches = 0

        def search(self, queries: np.ndarray, count: int, params: Any = None) -> Any:
            assert getattr(params, "sel", None) is None
            self.searches += 1
            return self._faiss.search(queries, count, params=params)

    copies: list[OnGpu] = []

    def index_cpu_to_gpu(_resources: object, _device: int, original: Any) -> OnGpu:
        copies.append(OnGpu(original))
        return copies[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    vectors, ids = people(ROWS), list[int]()
    for kind in ("flat", "ivf_sq8"):
        here = place(kind)
        if kind == "ivf_sq8":
            here.held.row = replace(here.held.row, index_kind="ivf_sq8")
        ids = here.enrol(vectors) if kind == "flat" else ids
        assert "copied to the GPU" in here.run_once()
        before = copies[-1].searches
        assert recall(here, ids, vectors) >= 0.98
        assert copies[-1].searches == before + 50
        assert recall(here, ids[3::10], vectors[3::10], Filter(cameras=frozenset({"c3"}))) >= 0.98
        assert copies[-1].searches == before + (50 if kind == "flat" else 100)
        here.delete(ids[-1:])
        ids, vectors = ids[:-1], vectors[:-1]
        made, before = len(copies), copies[-1].searches
        assert recall(here, ids, vectors) >= 0.98
        assert copies[-1].searches == before
        here.run_once()
        assert len(copies) == made + 1


def test_a_thread_that_stays_on_one_core_does_so_through_searches_of_many_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.index.exact._CORES", 2)
    index, queries = ExactIndex(8), np.eye(6, 8, dtype=np.float32)
    index.add(queries)

    def threads() -> int:
        index.search(queries, 1, None)
        return faiss.omp_get_max_threads()

    with ThreadPoolExecutor(1, initializer=_lower_priority) as upkeep, ThreadPoolExecutor(1) as search:
        assert [upkeep.submit(threads).result(), search.submit(threads).result()] == [1, 2]
