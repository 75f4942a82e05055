"""Tables of finished runs.

OUT/pan_c-seed0/ ...   the runs
OUT/table.csv          one line per finished run
OUT/table.md           one line per row: mean and standard deviation over the seeds; the paper's figures apart
"""

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from training.checkpoint import load_checkpoint
from training.experiments.paper import Printed
from training.trainer import WEIGHTS
from training.trainer.cost import RunCost, read_cost

HEADINGS = {
    "row": "row",
    "data": "data",
    "seeds": "seeds",
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "mAP": "mAP",
    "overlap": "mask overlap",
    "parameters": "M parameters",
    "memory": "peak GiB in training",
    "seconds": "s for the test",
    "device": "device",
}
PRINTED_HEADINGS = HEADINGS | {"memory": "GiB at batch 128", "seconds": "s for the test, Quadro GV100"}


@dataclass(frozen=True, slots=True)
class Result:
    """One finished run. Figures in per cent, millions of parameters, GiB and seconds; None: not known."""

    row: str
    data: str
    seed: int
    rank1: float
    rank5: float
    rank10: float
    mAP: float
    overlap: float | None  # mean cosine of the masks of a scale at the end
    parameters: float
    memory: float | None  # peak of the process that trained, at the batch of the run
    seconds: float | None  # embedding of query and gallery, and ranking
    device: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The finished runs of one row; figures as text, mean and standard deviation over the seeds."""

    row: str
    data: str
    seeds: str
    rank1: str
    rank5: str
    rank10: str
    mAP: str
    overlap: str
    parameters: str
    memory: str
    seconds: str
    device: str


def results(out: Path) -> Iterator[Result]:
    """Every finished run of a table, by folder."""
    for weights in sorted(out.glob(f"*-seed*/{WEIGHTS}")):
        network, card = load_checkpoint(weights)
        if card.evaluation is None:
            continue
        found, cost = card.evaluation, read_cost(weights.parent) or RunCost("", None, None)
        yield Result(
            row=weights.parent.name.rpartition("-seed")[0],
            data=found.data,
            seed=card.provenance.seed,
            rank1=found.cmc[1],
            rank5=found.cmc[5],
            rank10=found.cmc[10],
            mAP=found.mAP,
            overlap=_last_overlap(weights.parent),
            parameters=network.parameter_count() / 1e6,
            memory=cost.peak_memory_gib,
            seconds=cost.test_seconds,
            device=cost.device,
        )


def _last_overlap(folder: Path) -> float | None:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        last = list(csv.DictReader(stream))[-1]
    return float(last["overlap"]) if last.get("overlap") else None


def summaries(runs: Iterable[Result]) -> list[Summary]:
    """One summary for each row with finished runs, in the order of their first run."""
    by_row: dict[str, list[Result]] = defaultdict(list)
    for run in runs:
        by_row[run.row].append(run)
    return [_summary(group) for group in by_row.values()]


def _summary(runs: Sequence[Result]) -> Summary:
    def mean(values: Iterable[float | None], digits: int) -> str:
        known = [value for value in values if value is not None]
        if not known:
            return ""
        spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
        return f"{statistics.mean(known):.{digits}f}{spread}"

    return Summary(
        row=runs[0].row,
        data=", ".join(sorted({run.data for run in runs})),
        seeds=str(len(runs)),
        rank1=mean((run.rank1 for run in runs), 2),
        rank5=mean((run.rank5 for run in runs), 2),
        rank10=mean((run.rank10 for run in runs), 2),
        mAP=mean((run.mAP for run in runs), 2),
        overlap=mean((run.overlap for run in runs), 2),
        parameters=f"{runs[0].parameters:.2f}",
        memory=mean((run.memory for run in runs), 2),
        seconds=mean((run.seconds for run in runs), 1),
        device=", ".join(sorted({run.device for run in runs} - {""})),
    )


def write_tables(out: Path, title: str, rows: Sequence[str], printed: Mapping[str, Printed]) -> None:
    """Write `table.csv` and `table.md` from the finished runs of `rows`; `printed`: the paper's figures by row."""
    runs = sorted((run for run in results(out) if run.row in rows), key=lambda run: (rows.index(run.row), run.seed))
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Result)])
        writer.writeheader()
        for run in runs:
            writer.writerow({name: _cell(value) for name, value in asdict(run).items()})
    ours = _markdown([asdict(summary) for summary in summaries(runs)], HEADINGS) if runs else ["no run has finished"]
    lines = [title, "", *ours]
    finished = {run.row for run in runs}
    paper = [{"row": row} | asdict(printed[row]) for row in rows if row in finished and row in printed]
    if paper:
        lines += ["", "Printed in the paper, on the official data set:", "", *_markdown(paper, PRINTED_HEADINGS)]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _markdown(rows: Sequence[Mapping[str, object]], headings: Mapping[str, str]) -> list[str]:
    """A Markdown table without the columns that no row has."""
    used = [name for name in headings if any(row.get(name) not in (None, "") for row in rows)]
    lines = [[headings[name] for name in used], ["---"] * len(used)]
    lines += [[_cell(row.get(name)) for name in used] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
