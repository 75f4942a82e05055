"""Rows that are likely the best, found without looking at all of them, and with a recall that was measured.

Vectors are projected onto their leading principal components first: nearly all that tells people apart lies in a few of
them, and whatever is proposed is scored exactly afterwards. How hard to look is not guessed but tried out on vectors of
the gallery itself, until as many of the true neighbours are found as `WANTED` says; where no effort is enough, the
search is exact.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import orjson

from service.engine import Vectors
from service.index import ApproximateKind, Rows
from service.index.hnsw import Hnsw
from service.index.ivf import Ivf

WANTED = {10: 0.996, 100: 0.98, 1000: 0.97}  # the recall by the number of neighbours
_COMPONENTS = 64
_SLACK = 1.25  # a filter that shuts out a few rows does not need the effort of the next depth

State = dict[str, npt.NDArray[Any]]
Score = Callable[[Vectors, Rows], Vectors]  # (Q, n) scores of (Q, n) rows


class Approximate:
    """Proposes rows among the first `len(self)`; the rows after them are not in it yet."""

    def __init__(self, kind: ApproximateKind, projection: Vectors, inner: Ivf | Hnsw, planned: int) -> None:
        """`projection` is (D, P); `planned` the number of rows that the index was laid out for."""
        self.kind = kind
        self.planned = planned
        self.recall: float | None = None  # of the ten nearest
        self._efforts: dict[int, int] = {}  # the least that find as many as wanted, by depth
        self._projection = projection
        self._inner = inner
        self._rows = 0

    @classmethod
    def train(cls, kind: ApproximateKind, sample: Vectors, rows: int) -> Self:
        """An empty index, laid out for so many rows like those of the (n, D) sample."""
        projection = principal_components(sample, _COMPONENTS)
        projected = sample @ projection
        return cls(
            kind, projection, Hnsw.train(projected) if kind == "hnsw" else Ivf.train(kind, projected, rows), rows
        )

    @classmethod
    def restored(cls, state: State, vectors: Sequence[Vectors]) -> Self:
        """What `state` was of, where that needs (n, D) vectors, which come in parts, of the very rows it had."""
        told = orjson.loads(state["told"].tobytes())
        trained, projection = state["trained"].tobytes(), np.ascontiguousarray(state["projection"], np.float32)
        if "graph" in state:
            projected = np.concatenate([part @ projection for part in vectors])
            inner: Ivf | Hnsw = Hnsw(trained, state["graph"].tobytes(), projected)
        else:
            inner = Ivf(trained)
        approximate = cls(told["kind"], projection, inner, told["planned"])
        approximate._rows = told["rows"] if "graph" in state else 0
        approximate._efforts = {int(depth): effort for depth, effort in told["efforts"].items()}
        approximate.recall = told["recall"]
        return approximate

    def state(self) -> State:
        """What is costly to find again; no vector is in it."""
        efforts = {str(depth): effort for depth, effort in self._efforts.items()}
        told = {"kind": self.kind, "planned": self.planned, "rows": self._rows, "recall": self.recall}
        text = np.frombuffer(orjson.dumps({**told, "efforts": efforts}), np.uint8)
        return {"told": text, "projection": self._projection, **self._inner.state()}

    def empty(self) -> "Approximate":
        """Another without rows, trained and tuned alike."""
        copy = Approximate(self.kind, self._projection, self._inner.empty(), self.planned)
        copy._efforts, copy.recall = dict(self._efforts), self.recall
        return copy

    def __len__(self) -> int:
        return self._rows

    @property
    def follows_rows(self) -> bool:
        """Whether `state` tells of single rows, so that it serves only where they are the same."""
        return self.kind == "hnsw"

    @property
    def quickly_added(self) -> int:
        """Rows that are appended within some milliseconds."""
        return 64 if self.kind == "hnsw" else 1024

    def prepare(self, vectors: Vectors) -> Callable[[], None]:
        """Work out where (n, D) vectors go, beside searches; what it returns appends them, and needs to be alone."""
        append = self._inner.prepare(vectors @ self._projection)

        def appended() -> None:
            append()
            self._rows += len(vectors)

        return appended

    @property
    def least_alive(self) -> float:
        """The share of rows that must be alive for what was measured to hold: the dead are blind alleys in a graph."""
        return 0.95 if self.kind == "hnsw" else 0.5

    def search(self, queries: Vectors, depth: int) -> Rows | None:
        """(Q, n) rows for each of (Q, D) queries, a few times `depth` of them; -1 where not so many were met.

        As many of the best `depth` rows are among them as `WANTED` says; None where no effort is known to find those.
        """
        effort = next((effort for measured, effort in self._efforts.items() if depth <= _SLACK * measured), None)
        return None if effort is None else self._search(queries, depth, effort)

    def copy_to_gpu(self) -> bool:
        """Search on a GPU where that can be done; whether a copy was made for it. Raises RuntimeError without room."""
        return isinstance(self._inner, Ivf) and self._inner.copy_to_gpu()

    def wipe(self, rows: Rows) -> None:
        """Overwrite what is held of these rows."""
        self._inner.wipe(rows[rows < self._rows])

    def tune(self, queries: Vectors, own: Rows, truth: Rows, score: Score) -> None:
        """Find the least efforts that find as many as wanted.

        queries: (Q, D), of the rows `own` (Q,), which are not their own neighbours; truth: (Q, n), the nearest rows of
        each, best first, n over 10.
        """
        self._efforts, self.recall = {}, None
        truth = _without(truth, own)
        efforts = iter(self._inner.efforts)
        effort = next(efforts)
        for depth, wanted in WANTED.items():
            if depth > truth.shape[1]:
                return
            while (recall := self._recall(queries, own, truth[:, :depth], effort, score)) < wanted:
                if (harder := next(efforts, None)) is None:
                    return
                effort = harder
            self._efforts[depth] = effort
            self.recall = recall if self.recall is None else self.recall

    def _search(self, queries: Vectors, depth: int, effort: int) -> Rows:
        return self._inner.search(queries @ self._projection, min(2 * depth + 60, self._rows), effort)

    def _recall(self, queries: Vectors, own: Rows, truth: Rows, effort: int, score: Score) -> float:
        depth = truth.shape[1]
        proposed = self._search(queries, depth + 1, effort)
        best_first = np.argsort(-score(queries, proposed), axis=1, kind="stable")
        found = _without(np.take_along_axis(proposed, best_first, axis=1), own)[:, :depth]
        hits = [len(np.intersect1d(*both)) for both in zip(truth, found, strict=True)]
        return float(sum(hits) / (depth * len(hits)))


def kind_of(state: State) -> ApproximateKind:
    """The kind of index that a state is of."""
    kind: ApproximateKind = orjson.loads(state["told"].tobytes())["kind"]
    return kind


def principal_components(sample: Vectors, most: int) -> Vectors:
    """(D, P) orthonormal columns, P at most `most`: where the (n, D) sample, not centred, has most of its length."""
    moments = (sample.T @ sample).astype(np.float64) / len(sample)
    _, vectors = np.linalg.eigh(moments)  # in ascending order
    return np.ascontiguousarray(vectors[:, ::-1][:, :most], np.float32)


def _without(rows: Rows, own: Rows) -> Rows:
    """(Q, n) rows without each query's own, (Q, n - 1); where that is not among them, without the last."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    left: Rows = rows[~is_own].reshape(len(rows), -1)
    return left
