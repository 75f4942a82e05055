"""What a batch made: a table for the terminal, and the same as JSON and Markdown beside the bundles."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from export.batch.plan import Job
from export.batch.runner import Seen
from export.batch.state import Row

COLUMNS = ("engine", "verdict", "MB", "seconds", "ms/crop", "1-cos", "mAP")


def summary_as_json(seen: Sequence[Seen]) -> dict[str, object]:
    """One object with every row; `kept` marks what an earlier run made."""
    rows = [{**row.row.model_dump(mode="json", exclude={"key"}), "kept": row.kept} for row in seen]
    return {"failed": failed(seen), "rows": rows}


def failed(seen: Sequence[Seen]) -> list[str]:
    """Bundle and engine of the rows that failed."""
    return [_name(each.row) for each in seen if each.row.verdict == "failed"]


def write_summary(out: Path, seen: Sequence[Seen]) -> None:
    """Write summary.json and summary.md, each replaced whole."""
    for name, text in (("summary.json", json.dumps(summary_as_json(seen), indent=1)), ("summary.md", _markdown(seen))):
        draft = out / f".{name}.draft"
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(out / name)


def table(seen: Sequence[Seen]) -> Table:
    """A row an engine, under the name of its bundle."""
    result = _table(COLUMNS, texts=2)
    before = None
    for each in seen:
        if each.row.bundle != before:
            result.add_row(each.row.bundle, style="bold")
        style = "red" if each.row.verdict == "failed" else None
        result.add_row(*_indented(_cells(each)), style=style)
        before = each.row.bundle
    return result


def reasons(seen: Sequence[Seen]) -> list[str]:
    """Why engines failed or are unverified; those of one reason share a line."""
    shared: dict[str, list[str]] = {}
    for each in seen:
        if each.row.reason:
            shared.setdefault(f"{each.row.verdict}: {each.row.reason}", []).append(_name(each.row))
    return [f"{', '.join(names)}: {reason}" for reason, names in shared.items()]


def foreseen(fates: Sequence[tuple[Job, str, str]]) -> Table:
    """What a run would do, a row an engine."""
    result = _table(("engine", "batch", "what a run does"), texts=3)
    before = None
    for job, label, fate in fates:
        if job.name != before:
            result.add_row(job.name, style="bold")
        batch = job.batch
        result.add_row(
            *_indented((label, f"{batch.min}:{batch.opt}:{batch.max}" if label in job.compiled else "", fate))
        )
        before = job.name
    return result


def _table(columns: Sequence[str], texts: int) -> Table:
    result = Table(box=SIMPLE_HEAD, pad_edge=False)  # with borders it would be wider than a terminal
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < texts else "right")
    return result


def _indented(cells: Sequence[str]) -> list[str]:
    return [f"  {cells[0]}", *cells[1:]]


def _markdown(seen: Sequence[Seen]) -> str:
    lines = [
        f"| bundle | file | {' | '.join(COLUMNS)} |",
        "| --- | --- | --- | --- |" + " ---: |" * (len(COLUMNS) - 2),
        *(f"| {each.row.bundle} | {each.row.file or ''} | {' | '.join(_cells(each))} |" for each in seen),
    ]
    return "\n".join([*lines, *([""] if reasons(seen) else []), *(f"- {reason}" for reason in reasons(seen))])


def _cells(seen: Seen) -> tuple[str, ...]:
    row, parity = seen.row, seen.row.parity
    return (
        row.engine,
        row.verdict,
        "" if row.bytes is None else f"{row.bytes / 1e6:.1f}",
        "kept" if seen.kept else "" if row.seconds is None else f"{row.seconds:.1f}",
        "" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        "" if parity is None else f"{1 - parity.cosine_min:.0e}",
        "" if parity is None or parity.mAP_difference is None else f"{parity.mAP_difference:+.2f}",
    )


def _name(row: Row) -> str:
    return f"{row.bundle} {row.engine}"
