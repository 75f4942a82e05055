"""The results of a batch as a table for the terminal, and as JSON and Markdown files beside the bundles."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from export.batch.plan import Job
from export.batch.runner import ResultRow
from export.batch.state import Row

COLUMNS = ("engine", "verdict", "MB", "seconds", "ms/crop", "1-cos", "mAP")


def summary_as_json(results: Sequence[ResultRow]) -> dict[str, object]:
    """One object with every row; `kept` marks engines of an earlier run."""
    rows = [{**row.row.model_dump(mode="json", exclude={"key"}), "kept": row.kept} for row in results]
    return {"failed": failed(results), "rows": rows}


def failed(results: Sequence[ResultRow]) -> list[str]:
    """Bundle and engine of the rows that failed."""
    return [_name(each.row) for each in results if each.row.verdict == "failed"]


def write_summary(out: Path, results: Sequence[ResultRow]) -> None:
    """Write summary.json and summary.md atomically."""
    for name, text in (
        ("summary.json", json.dumps(summary_as_json(results), indent=1)),
        ("summary.md", _markdown(results)),
    ):
        draft = out / f".{name}.draft"
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(out / name)


def table(results: Sequence[ResultRow]) -> Table:
    """One row per engine, grouped by bundle."""
    result = _table(COLUMNS, texts=2)
    before = None
    for each in results:
        if each.row.bundle != before:
            result.add_row(each.row.bundle, style="bold")
        style = "red" if each.row.verdict == "failed" else None
        result.add_row(*_indented(_cells(each)), style=style)
        before = each.row.bundle
    return result


def reasons(results: Sequence[ResultRow]) -> list[str]:
    """Why engines failed or are unverified; engines with the same reason share a line."""
    shared: dict[str, list[str]] = {}
    for each in results:
        if each.row.reason:
            shared.setdefault(f"{each.row.verdict}: {each.row.reason}", []).append(_name(each.row))
    return [f"{', '.join(names)}: {reason}" for reason, names in shared.items()]


def actions_table(actions: Sequence[tuple[Job, str, str]]) -> Table:
    """What a run would do, one row per engine."""
    result = _table(("engine", "batch", "action"), texts=3)
    before = None
    for job, label, action in actions:
        if job.name != before:
            result.add_row(job.name, style="bold")
        batch = job.batch
        result.add_row(
            *_indented((label, f"{batch.min}:{batch.opt}:{batch.max}" if label in job.compiled else "", action))
        )
        before = job.name
    return result


def _table(columns: Sequence[str], texts: int) -> Table:
    result = Table(box=SIMPLE_HEAD, pad_edge=False)  # borders would make it wider than a terminal
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < texts else "right")
    return result


def _indented(cells: Sequence[str]) -> list[str]:
    return [f"  {cells[0]}", *cells[1:]]


def _markdown(results: Sequence[ResultRow]) -> str:
    lines = [
        f"| bundle | file | {' | '.join(COLUMNS)} |",
        "| --- | --- | --- | --- |" + " ---: |" * (len(COLUMNS) - 2),
        *(f"| {each.row.bundle} | {each.row.file or ''} | {' | '.join(_cells(each))} |" for each in results),
    ]
    return "\n".join([*lines, *([""] if reasons(results) else []), *(f"- {reason}" for reason in reasons(results))])


def _cells(results: ResultRow) -> tuple[str, ...]:
    row, parity = results.row, results.row.parity
    return (
        row.engine,
        row.verdict,
        "" if row.bytes is None else f"{row.bytes / 1e6:.1f}",
        "kept" if results.kept else "" if row.seconds is None else f"{row.seconds:.1f}",
        "" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        "" if parity is None else f"{1 - parity.cosine_min:.0e}",
        "" if parity is None or parity.mAP_difference is None else f"{parity.mAP_difference:+.2f}",
    )


def _name(row: Row) -> str:
    return f"{row.bundle} {row.engine}"
