"""Trains the variants of a table of the paper with several seeds; finished runs are kept when it is resumed.

OUT/pan_c-seed0/ ...   the runs
OUT/table.csv          one row per finished run
OUT/table.md           one row per variant: mean and standard deviation; the paper's figures in a separate table
"""

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from rich.console import Console

from bundle import PanError
from training.checkpoint import load_checkpoint
from training.config import RunConfig
from training.errors import CheckpointError, ConfigError, DataError
from training.trainer import STATE, WEIGHTS, Trainer
from training.trainer.interruption import Stopped

# rank-1 and mAP of the paper on Market-1501; None if the paper has no such row
TABLES: dict[str, dict[str, tuple[float, float] | None]] = {
    "table1": {
        "global_pool": (86.0, 68.9),
        "stripes_3": (91.7, 78.1),
        "stripes_6": (92.5, 79.5),
        "stripes_8": (92.4, 79.2),
        "plm_1": (90.0, 75.4),
        "plm_12": (91.8, 78.9),
        "baseline": (92.9, 80.4),
        "plm_1234": (92.8, 79.9),
    },
    "table2": {
        "bot": None,  # a common baseline
        "baseline": (93.0, 81.1),
        "baseline_w": (93.4, 81.8),
        "conv_a": (93.5, 82.0),
        "conv_c": (93.7, 82.5),
        "pan_a_128": (93.5, 83.0),
        "pan_a": (93.8, 83.5),
        "pan_a_wide": (93.9, 83.6),
        "pan_c_128": (93.8, 83.7),
        "pan_c": (94.3, 84.2),
        "pan_c_wide": (94.3, 84.1),
        "nl": (93.9, 83.9),
        "pan_c_nl": (94.8, 85.3),
    },
}


@dataclass(frozen=True, slots=True)
class Result:
    """One finished run."""

    data: str
    variant: str
    seed: int
    rank1: float
    mAP: float
    overlap: float | None  # mean cosine of the masks of a scale at the end; None without masks


def run_table(
    table: str, variants: Sequence[str], seeds: Sequence[int], config: RunConfig, out: Path, console: Console
) -> list[str]:
    """Train all unfinished runs of variants x seeds; returns a message for each run that failed.

    A failed run does not stop the others. Raises Stopped when interrupted, ConfigError for an unknown name.
    """
    known = TABLES.get(table)
    if known is None:
        raise ConfigError(f"there is no {table}; choose one of {', '.join(TABLES)}")
    unknown = [variant for variant in variants if variant not in known]
    if unknown:
        raise ConfigError(f"{table} has no {', '.join(unknown)}; it has {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    failures = []
    for seed in seeds:  # seeds in the outer loop, so that an interrupted table has complete comparisons
        for variant in variants or list(known):
            folder = out / f"{variant}-seed{seed}"
            model = config.model.model_copy(update={"variant": variant})
            try:
                _finish(config.model_copy(update={"model": model, "seed": seed}), folder, console)
            except Stopped:
                raise
            except PanError as error:
                failures.append(f"{folder.name}: {error}")
                continue
            write_tables(out, known)
    return failures


def _finish(config: RunConfig, folder: Path, console: Console) -> None:
    if _finished(folder, config):
        console.print(f"{folder.name}: finished before")
        return
    console.print(f"{folder.name}: training", highlight=False)
    trainer = Trainer(config, folder, console)
    if trainer.not_evaluated:
        raise DataError(f"{trainer.not_evaluated}; a table needs figures: set data.test to a test set")
    if (folder / STATE).exists():
        trainer.resume()
    trainer.run()


def _finished(folder: Path, config: RunConfig) -> bool:
    try:
        _, card = load_checkpoint(folder)
    except CheckpointError:
        return False
    return card.evaluation is not None and card.provenance.iterations == config.optim.iterations


def results(out: Path) -> Iterator[Result]:
    """Every finished run of a table, by folder."""
    for weights in sorted(out.glob(f"*-seed*/{WEIGHTS}")):
        _, card = load_checkpoint(weights)
        if card.evaluation is None:
            continue
        with (weights.parent / "metrics.csv").open(newline="", encoding="utf-8") as stream:
            last = list(csv.DictReader(stream))[-1]
        overlap = float(last["overlap"]) if last.get("overlap") else None
        found = card.evaluation
        yield Result(found.data, card.variant, card.provenance.seed, found.cmc[1], found.mAP, overlap)


@dataclass(frozen=True, slots=True)
class Summary:
    """The finished runs of one variant; figures as text: mean and standard deviation over the seeds."""

    data: str
    variant: str
    seeds: int
    rank1: str
    mAP: str
    overlap: str


def summaries(runs: Iterable[Result], variants: Iterable[str]) -> list[Summary]:
    """One row for each variant with finished runs, in the order of `variants`."""
    by_variant: dict[str, list[Result]] = defaultdict(list)
    for run in runs:
        by_variant[run.variant].append(run)
    return [_summary(by_variant[variant]) for variant in variants if variant in by_variant]


def _summary(runs: Sequence[Result]) -> Summary:
    overlaps = [run.overlap for run in runs if run.overlap is not None]
    return Summary(
        data=", ".join(sorted({run.data for run in runs})),
        variant=runs[0].variant,
        seeds=len(runs),
        rank1=_mean([run.rank1 for run in runs]),
        mAP=_mean([run.mAP for run in runs]),
        overlap=f"{statistics.mean(overlaps):.2f}" if overlaps else "",
    )


def write_tables(out: Path, known: dict[str, tuple[float, float] | None]) -> None:
    """Write `table.csv` and `table.md` from the finished runs."""
    runs = list(results(out))
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["data", "variant", "seed", "rank1", "mAP", "mask_overlap"])
        for run in runs:
            overlap = "" if run.overlap is None else f"{run.overlap:.3f}"
            writer.writerow([run.data, run.variant, run.seed, f"{run.rank1:.2f}", f"{run.mAP:.2f}", overlap])
    lines = ["| data | variant | seeds | rank-1 | mAP | mask overlap |", "| --- | --- | --- | --- | --- | --- |"]
    paper = ["", "The paper, on Market-1501:", "", "| variant | rank-1 | mAP |", "| --- | --- | --- |"]
    for row in summaries(runs, known):
        lines.append(f"| {' | '.join(map(str, astuple(row)))} |")
        if printed := known[row.variant]:
            paper.append(f"| {row.variant} | {printed[0]:.1f} | {printed[1]:.1f} |")
    (out / "table.md").write_text("\n".join(lines + paper) + "\n", encoding="utf-8")


def _mean(values: Sequence[float]) -> str:
    """The mean, with the sample standard deviation for two or more values."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"
