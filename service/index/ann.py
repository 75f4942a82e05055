"""An approximate index (ANN): proposes candidate rows without comparing all vectors.

The index holds vectors projected onto their leading principal components, which carry most of the differences between
persons; candidates are scored exactly afterwards. `service.index.recall` measures its recall with rows that it does not
hold, and it only answers searches that the latest measurement covers.

Shapes: N rows, Q queries, D dimensions of a vector, P dimensions after projection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import orjson

from service.core.types import Mask, Rows, Vectors
from service.index.choice import AnnKind
from service.index.hnsw import Hnsw
from service.index.ivf import Ivf

COMPONENTS = (64, 128, 256)  # values of P, tried in this order until the recall reaches its target
_SLACK = 1.25  # a filter that excludes a few rows does not need the search parameter of the next depth
_RETRAIN_AFTER = 0.01  # share of added or deleted rows before a new training while the recall is below its target
_FORMAT = 2  # of `state`
_HEADER = "told"  # the name of the header in snapshots

State = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measured recall of an index, and the rows that it covers.

    rows: the number of first rows of the gallery that the measurement covers.
    held_out: (n,) ascending rows that serve as queries. The index may lack them, so they are always scored.
    search_params: by number of neighbours, the smallest sufficient search parameter. Deeper searches are exact.
    recall, recall_recent: the share of the ten nearest rows that was found, with queries of all ages and of the newest.
    queries, queries_recent: the number of queries behind each.
    at: time of the measurement, in microseconds since 1970.
    deleted_count: the number of deleted rows at that time.
    """

    rows: int
    held_out: Rows
    search_params: dict[int, int]
    recall: float
    recall_recent: float
    queries: int
    queries_recent: int
    at: int
    deleted_count: int


class AnnIndex:
    """Proposes candidates among the rows that its measurement covers. Later rows must be searched separately."""

    def __init__(
        self, kind: AnnKind, projection: Vectors, inner: Ivf | Hnsw, trained_rows: int, trained_until: int
    ) -> None:
        """`projection` is (D, P) float32. It was trained on `trained_rows` entries with ids up to `trained_until`.

        `retrain_after` doubles with each training that does not reach the target recall.
        """
        self.kind = kind
        self.trained_rows = trained_rows
        self.trained_until = trained_until
        self.retrain_after = _RETRAIN_AFTER
        self.measured: Measurement | None = None
        self.initial_params: dict[int, int] = {}  # by depth: where the next measurement starts
        self._projection = projection
        self._inner = inner

    @classmethod
    def train(cls, kind: AnnKind, sample: Vectors, projection: Vectors, rows: int, until: int) -> Self:
        """An empty index for `rows` rows, trained on an (n, D) float32 sample. `until` is the newest entry id."""
        projected = sample @ projection
        inner = Hnsw.train(projected) if kind == "hnsw" else Ivf.train(kind, projected, rows)
        return cls(kind, projection, inner, rows, until)

    @classmethod
    def restored(cls, state: State, rows: Rows, vectors: Sequence[Vectors]) -> Self:
        """The index of a `state`, without a measurement.

        `rows` (n,) and `vectors`, parts of (n, D) float32, belong to the nodes of a graph; other kinds ignore them.
        """
        header = orjson.loads(state[_HEADER].tobytes())
        trained, projection = state["trained"].tobytes(), np.ascontiguousarray(state["projection"], np.float32)
        if "graph" in state:
            projected = np.concatenate([part @ projection for part in vectors])
            inner: Ivf | Hnsw = Hnsw(trained, state["graph"].tobytes(), rows, projected)
        else:
            inner = Ivf(trained)
        index = cls(header["kind"], projection, inner, header["trained_rows"], header["trained_until"])
        index.retrain_after = header["retrain_after"]
        index.initial_params = {int(depth): param for depth, param in header["efforts"].items()}
        return index

    def state(self) -> State:
        """What is expensive to compute again. It has no vectors and no recall: a restored index is measured again."""
        header = {
            "format": _FORMAT,
            "kind": self.kind,
            "trained_rows": self.trained_rows,
            "trained_until": self.trained_until,
            "retrain_after": self.retrain_after,
            "efforts": {str(depth): param for depth, param in self.initial_params.items()},
        }
        text = np.frombuffer(orjson.dumps(header), np.uint8)
        return {_HEADER: text, "projection": self._projection, **self._inner.state()}

    def empty(self) -> "AnnIndex":
        """A copy of the training, without rows and without a measurement."""
        copy = AnnIndex(self.kind, self._projection, self._inner.empty(), self.trained_rows, self.trained_until)
        copy.retrain_after, copy.initial_params = self.retrain_after, self.initial_params
        return copy

    def __len__(self) -> int:
        """The number of first rows of the gallery that the measurement covers."""
        return 0 if self.measured is None else self.measured.rows

    @property
    def held_out(self) -> Rows:
        """(n,) covered rows that it never proposes."""
        return np.empty(0, np.int64) if self.measured is None else self.measured.held_out

    @property
    def trusted(self) -> bool:
        """Whether the measured recall reaches its target. Otherwise searches are exact."""
        return self.measured is not None and bool(self.measured.search_params)

    @property
    def follows_rows(self) -> bool:
        """Whether `state` refers to rows, so that it is only valid for the same rows."""
        return self.kind == "hnsw"

    @property
    def nodes(self) -> Rows:
        """(n,) the row of each node of a graph."""
        assert isinstance(self._inner, Hnsw)
        return self._inner.rows

    @property
    def add_batch_size(self) -> int:
        """The number of rows that can be added within a few milliseconds."""
        return 64 if self.kind == "hnsw" else 1024

    @property
    def min_live_fraction(self) -> float:
        """The share of live rows that a measurement requires. In a graph, deleted nodes are dead ends."""
        return 0.95 if self.kind == "hnsw" else 0.5

    @property
    def search_params(self) -> Sequence[int]:
        """Possible search parameters, ascending: efSearch of a graph, nprobe of inverted lists."""
        return self._inner.search_params

    def holds(self, count: int) -> Mask:
        """(count,) booleans: whether each of the first rows is in the index."""
        return self._inner.holds(count)

    def prepare(self, rows: Rows, vectors: Vectors) -> Callable[[], None]:
        """Compute where (n, D) float32 vectors of (n,) rows go. Call the result to add them.

        Searches may run during `prepare`, but not during the returned call.
        """
        return self._inner.prepare(rows, vectors @ self._projection)

    def search(self, queries: Vectors, depth: int) -> Rows | None:
        """(Q, n) candidate rows for (Q, D) float32 queries, a few times `depth` each; -1 is no row.

        Candidates are covered rows without `held_out`. Returns None if no search parameter reaches the target recall at
        this depth.
        """
        measured = self.measured
        if measured is None:
            return None
        params = measured.search_params.items()
        param = next((param for neighbours, param in params if depth <= _SLACK * neighbours), None)
        if param is None:
            return None
        return self.propose(queries, depth, param, measured.rows, measured.held_out)

    def propose(self, queries: Vectors, depth: int, param: int, rows: int, held_out: Rows) -> Rows:
        """As `search`, with a given search parameter, number of covered rows and held-out rows."""
        found = self._inner.search(queries @ self._projection, 2 * depth + 60, param)
        found[found >= rows] = -1
        if len(held_out):  # np.isin would take as long as the whole search
            found[held_out[np.minimum(np.searchsorted(held_out, found), len(held_out) - 1)] == found] = -1
        return found

    def copy_to_gpu(self) -> bool:
        """Make a GPU replica if the kind supports it. Returns whether it did. Raises RuntimeError without memory."""
        return isinstance(self._inner, Ivf) and self._inner.copy_to_gpu()

    def wipe(self, rows: Rows) -> None:
        """Overwrite the data of (n,) rows."""
        self._inner.wipe(rows)


def state_kind(state: State) -> AnnKind | None:
    """The kind of index of a state; None if the state has another format."""
    header = orjson.loads(state[_HEADER].tobytes())
    kind: AnnKind | None = header["kind"] if header.get("format") == _FORMAT else None
    return kind


def principal_components(sample: Vectors, count: int) -> Vectors:
    """(D, P) float32 orthonormal columns, P <= `count`: the leading principal components of an (n, D) float32 sample.

    The sample is not centred, because inner products are not either.
    """
    moments = (sample.T @ sample).astype(np.float64) / len(sample)
    _, vectors = np.linalg.eigh(moments)  # by ascending eigenvalue
    return np.ascontiguousarray(vectors[:, ::-1][:, :count], np.float32)
