"""Time and memory of an evaluation at the sizes of Market-1501 and MSMT17.

    python -m benchmarks.training.evaluation_scale [--size market] [--size msmt17] [--measure ranking] [--json]

Embeddings are random directions of people plus noise that gives the mAP of an ordinary model. Each measurement runs in
its own process. The peak memory includes the interpreter, PyTorch, and the embeddings. `product` is the share of
`seconds` in the matrix product of queries and gallery.
"""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from training.evaluation import Embedded, Floats, Labels, cosine, evaluate_similarity, full_report, unit
from training.evaluation.query_expansion import expand_queries
from training.evaluation.reranking import rerank


@dataclass(frozen=True, slots=True)
class Size:
    """A test set: numbers of queries, gallery crops, people (the first one is the distractors) and cameras."""

    queries: int
    gallery: int
    people: int
    cameras: int


SIZES = {"market": Size(3_368, 15_913, 750, 6), "msmt17": Size(11_659, 82_161, 3_060, 15)}


@dataclass(frozen=True, slots=True)
class Cost:
    """One measurement."""

    size: str
    measure: str
    queries: int
    gallery: int
    dim: int
    threads: int
    seconds: float
    product: float | None
    peak_gib: float
    mAP: float


def embeddings(size: Size, dim: int) -> Embedded:
    """Unit rows: the direction of a person plus noise of 2.9 times its length."""
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((size.people + 1, dim), np.float32)

    def side(count: int, lowest: int) -> tuple[Floats, Labels]:
        person = rng.integers(lowest, size.people + 1, count)
        rows = rng.standard_normal((count, dim), np.float32)
        rows *= 2.9
        for start in range(0, count, 4096):
            rows[start : start + 4096] += centre[person[start : start + 4096]]
            rows[start : start + 4096] = unit(rows[start : start + 4096])
        return rows, Labels(person, rng.integers(1, size.cameras + 1, count))

    return Embedded(*side(size.queries, 1), *side(size.gallery, 0))


def ranking(data: Embedded) -> tuple[float, float | None]:
    """The official figures -> mAP, seconds of the matrix product."""
    product = cosine(data.query_QD, data.gallery_GD)
    spent = 0.0

    def timed(rows: slice) -> Floats:
        nonlocal spent
        start = time.perf_counter()
        found = product(rows)
        spent += time.perf_counter() - start
        return found

    return evaluate_similarity(timed, data.query, data.gallery).mAP, spent


def everything(data: Embedded) -> tuple[float, float | None]:
    """The full report."""
    return full_report(data).evaluation.mAP, None


def expansion(data: Embedded) -> tuple[float, float | None]:
    """Query expansion, and the official figures after it."""
    query_QD = expand_queries(data.query_QD, data.gallery_GD)
    return evaluate_similarity(cosine(query_QD, data.gallery_GD), data.query, data.gallery).mAP, None


def reranking(data: Embedded) -> tuple[float, float | None]:
    """Re-ranking, and the official figures after it."""
    return evaluate_similarity(rerank(data.query_QD, data.gallery_GD), data.query, data.gallery).mAP, None


MEASURES: dict[str, Callable[[Embedded], tuple[float, float | None]]] = {
    "ranking": ranking,
    "full": everything,
    "expansion": expansion,
    "rerank": reranking,
}


def measure(size: str, name: str, dim: int) -> Cost:
    """Take one measurement in this process."""
    data = embeddings(SIZES[size], dim)
    start = time.perf_counter()
    found, product = MEASURES[name](data)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    counts = SIZES[size].queries, SIZES[size].gallery
    return Cost(size, name, *counts, dim, torch.get_num_threads(), seconds, product, peak, found)


def main(
    size: Annotated[list[str] | None, typer.Option(help="market or msmt17; default: both.")] = None,
    only: Annotated[list[str] | None, typer.Option("--measure", help=f"{', '.join(MEASURES)}; default: all.")] = None,
    dim: int = 1536,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run each measurement in its own process, sequentially."""
    costs = []
    for chosen in size or SIZES:
        for name in only or MEASURES:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                costs.append(pool.submit(measure, chosen, name, dim).result())
    if as_json:
        print(json.dumps([asdict(cost) for cost in costs]))
        return
    table = Table(title=f"{dim} numbers an embedding, {torch.get_num_threads()} threads")
    for column in ("queries x gallery", "measure", "seconds", "product", "peak GiB", "mAP"):
        table.add_column(column, justify="right")
    for cost in costs:
        product = "" if cost.product is None else f"{cost.product:.1f}"
        figures = (f"{cost.seconds:.1f}", product, f"{cost.peak_gib:.2f}", f"{cost.mAP:.2f}")
        table.add_row(f"{cost.size}: {cost.queries} x {cost.gallery}", cost.measure, *figures)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
