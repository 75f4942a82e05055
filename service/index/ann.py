"""An approximate index: proposes rows that are likely the best without looking at all of them.

Vectors are projected onto their leading principal components first: nearly all that tells people apart lies in a few of
them, and every proposed row is scored exactly afterwards. What the index finds is measured on rows that it does not
hold (`service.index.recall`); it answers only what the latest measurement covers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import orjson

from service.core.types import Mask, Rows, Vectors
from service.index.choice import ApproximateKind
from service.index.hnsw import Hnsw
from service.index.ivf import Ivf

COMPONENTS = (64, 128, 256)  # tried in this order until the recall reaches its target
_SLACK = 1.25  # a filter that shuts out a few rows does not need the effort of the next depth
_RETRAIN_AFTER = 0.01  # share of rows that came or went before a training when the recall is below its target
_FORMAT = 2  # of `state`

State = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an index was found to find, and the rows for which that holds.

    rows: the first rows of the gallery, over which it was measured. held_out, ascending: those that serve as queries of
    the next measurement: the index may lack them, so they are always scored. efforts: the least effort by the number of
    neighbours; a depth without one is searched exactly. recall, recall_recent: the share of the ten nearest that was
    found, for rows of all ages and for the newest. at: microseconds since 1970. dead: deleted rows at that time.
    """

    rows: int
    held_out: Rows
    efforts: dict[int, int]
    recall: float
    recall_recent: float
    queries: int
    queries_recent: int
    at: int
    dead: int


class Approximate:
    """Proposes rows of those that it was measured over; later ones must be searched beside it."""

    def __init__(
        self, kind: ApproximateKind, projection: Vectors, inner: Ivf | Hnsw, trained_rows: int, trained_until: int
    ) -> None:
        """`projection` is (D, P). When it was trained, the gallery held `trained_rows` entries, up to `trained_until`.

        `retrain_after` is doubled by each training that does not bring the recall to its target.
        """
        self.kind = kind
        self.trained_rows = trained_rows
        self.trained_until = trained_until
        self.retrain_after = _RETRAIN_AFTER
        self.measured: Measurement | None = None
        self.first_efforts: dict[int, int] = {}  # where tuning begins
        self._projection = projection
        self._inner = inner

    @classmethod
    def train(cls, kind: ApproximateKind, sample: Vectors, projection: Vectors, rows: int, until: int) -> Self:
        """An empty index, laid out for `rows` rows like those of the (n, D) sample; `until` is the newest entry id."""
        projected = sample @ projection
        inner = Hnsw.train(projected) if kind == "hnsw" else Ivf.train(kind, projected, rows)
        return cls(kind, projection, inner, rows, until)

    @classmethod
    def restored(cls, state: State, rows: Rows, vectors: Sequence[Vectors]) -> Self:
        """The index of a `state`, not measured. A graph takes its nodes' (n,) rows and, in parts, (n, D) vectors."""
        told = orjson.loads(state["told"].tobytes())
        trained, projection = state["trained"].tobytes(), np.ascontiguousarray(state["projection"], np.float32)
        if "graph" in state:
            projected = np.concatenate([part @ projection for part in vectors])
            inner: Ivf | Hnsw = Hnsw(trained, state["graph"].tobytes(), rows, projected)
        else:
            inner = Ivf(trained)
        approximate = cls(told["kind"], projection, inner, told["trained_rows"], told["trained_until"])
        approximate.retrain_after = told["retrain_after"]
        approximate.first_efforts = {int(depth): effort for depth, effort in told["efforts"].items()}
        return approximate

    def state(self) -> State:
        """What is costly to find again. It holds no vector and no recall: a restored index is measured anew."""
        told = {
            "format": _FORMAT,
            "kind": self.kind,
            "trained_rows": self.trained_rows,
            "trained_until": self.trained_until,
            "retrain_after": self.retrain_after,
            "efforts": {str(depth): effort for depth, effort in self.first_efforts.items()},
        }
        text = np.frombuffer(orjson.dumps(told), np.uint8)
        return {"told": text, "projection": self._projection, **self._inner.state()}

    def empty(self) -> "Approximate":
        """Another without rows and without a measurement, trained alike."""
        copy = Approximate(self.kind, self._projection, self._inner.empty(), self.trained_rows, self.trained_until)
        copy.retrain_after, copy.first_efforts = self.retrain_after, self.first_efforts
        return copy

    def __len__(self) -> int:
        """The first rows of the gallery, for which it answers."""
        return 0 if self.measured is None else self.measured.rows

    @property
    def held_out(self) -> Rows:
        """Rows of these that it does not propose."""
        return np.empty(0, np.int64) if self.measured is None else self.measured.held_out

    @property
    def trusted(self) -> bool:
        """Whether its recall, when last measured, was enough; else searches are exact."""
        return self.measured is not None and bool(self.measured.efforts)

    @property
    def follows_rows(self) -> bool:
        """Whether `state` tells of single rows, so that it serves only where they are the same."""
        return self.kind == "hnsw"

    @property
    def nodes(self) -> Rows:
        """The row of each node of a graph, in their order."""
        assert isinstance(self._inner, Hnsw)
        return self._inner.rows

    @property
    def quickly_added(self) -> int:
        """Rows that are added within some milliseconds."""
        return 64 if self.kind == "hnsw" else 1024

    @property
    def min_live_fraction(self) -> float:
        """The share of rows that must be alive for a measurement to hold: the dead are blind alleys in a graph."""
        return 0.95 if self.kind == "hnsw" else 0.5

    @property
    def efforts(self) -> Sequence[int]:
        """What a search may spend, ascending."""
        return self._inner.efforts

    def holds(self, count: int) -> Mask:
        """(count,) booleans: which of the first `count` rows are in the index."""
        return self._inner.holds(count)

    def prepare(self, rows: Rows, vectors: Vectors) -> Callable[[], None]:
        """Work out where (n, D) vectors of (n,) rows go, beside searches; what it returns adds them, beside none."""
        return self._inner.prepare(rows, vectors @ self._projection)

    def search(self, queries: Vectors, depth: int) -> Rows | None:
        """(Q, n) rows of the first `len(self)` for each of (Q, D) queries, a few times `depth` of them; -1 is no row.

        None of `held_out` is among them: those are to be scored besides. None in place of rows where no effort is known
        to find enough of the best `depth`.
        """
        measured = self.measured
        if measured is None:
            return None
        effort = next((effort for known, effort in measured.efforts.items() if depth <= _SLACK * known), None)
        if effort is None:
            return None
        return self.propose(queries, depth, effort, measured.rows, measured.held_out)

    def propose(self, queries: Vectors, depth: int, effort: int, rows: int, held_out: Rows) -> Rows:
        """As `search`, of the first `rows` rows without the held-out ones."""
        found = self._inner.search(queries @ self._projection, 2 * depth + 60, effort)
        found[found >= rows] = -1
        if len(held_out):  # ascending; np.isin would take as long as all the rest
            found[held_out[np.minimum(np.searchsorted(held_out, found), len(held_out) - 1)] == found] = -1
        return found

    def copy_to_gpu(self) -> bool:
        """Search on a GPU where that can be done; whether a copy was made for it. Raises RuntimeError without room."""
        return isinstance(self._inner, Ivf) and self._inner.copy_to_gpu()

    def wipe(self, rows: Rows) -> None:
        """Overwrite what is held of these rows."""
        self._inner.wipe(rows)


def kind_of(state: State) -> ApproximateKind | None:
    """The kind of index that a state is of; None where another version of the service wrote it."""
    told = orjson.loads(state["told"].tobytes())
    kind: ApproximateKind | None = told["kind"] if told.get("format") == _FORMAT else None
    return kind


def principal_components(sample: Vectors, most: int) -> Vectors:
    """(D, P) orthonormal columns, P at most `most`: where the (n, D) sample, not centred, has most of its length."""
    moments = (sample.T @ sample).astype(np.float64) / len(sample)
    _, vectors = np.linalg.eigh(moments)  # in ascending order
    return np.ascontiguousarray(vectors[:, ::-1][:, :most], np.float32)
