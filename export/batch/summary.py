"""The results of a batch as a table for the terminal, and as JSON and Markdown files beside the bundles."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from export.batch.plan import Job
from export.batch.state import ResultRow
from export.files import write_atomically

COLUMNS = ("engine", "verdict", "MB", "seconds", "ms/crop", "1-cos", "mAP")


def summary_as_json(rows: Sequence[ResultRow]) -> dict[str, object]:
    """One object with every row; `kept` marks engines of an earlier run."""
    return {"failed": failed(rows), "rows": list(map(_row_as_json, rows))}


def failed(rows: Sequence[ResultRow]) -> list[str]:
    """Bundle and engine of the rows that failed."""
    return [f"{row.bundle} {row.engine}" for row in rows if row.verdict == "failed"]


def write_summary(out: Path, rows: Sequence[ResultRow]) -> None:
    """Write summary.json and summary.md atomically."""
    lines = [
        f"| bundle | file | {' | '.join(COLUMNS)} |",
        "| --- | --- | --- | --- |" + " ---: |" * (len(COLUMNS) - 2),
        *(f"| {row.bundle} | {row.entry.name if row.entry else ''} | {' | '.join(_cells(row))} |" for row in rows),
    ]
    if lines_of_reasons := reasons(rows):
        lines += ["", *(f"- {reason}" for reason in lines_of_reasons)]
    write_atomically(out / "summary.json", json.dumps(summary_as_json(rows), indent=1) + "\n")
    write_atomically(out / "summary.md", "\n".join(lines) + "\n")


def results_table(rows: Sequence[ResultRow]) -> Table:
    """One row per engine, grouped by bundle."""
    styles = {"failed": "red"}
    return _table(COLUMNS, 2, ((row.bundle, _cells(row), styles.get(row.verdict)) for row in rows))


def actions_table(actions: Sequence[tuple[Job, str, str]]) -> Table:
    """What a run would do, one row per engine, grouped by bundle."""
    profiles = {job.name: f"{job.batch.min}:{job.batch.opt}:{job.batch.max}" for job, _, _ in actions}
    rows = (
        (job.name, (label, profiles[job.name] if label in job.compiled else "", action), None)
        for job, label, action in actions
    )
    return _table(("engine", "batch", "action"), 3, rows)


def reasons(rows: Sequence[ResultRow]) -> list[str]:
    """Why engines failed or are unverified; engines with the same reason share a line."""
    shared: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            shared.setdefault(f"{row.verdict}: {row.reason}", []).append(f"{row.bundle} {row.engine}")
    return [f"{', '.join(names)}: {reason}" for reason, names in shared.items()]


def _table(columns: Sequence[str], texts: int, rows: Iterable[tuple[str, Sequence[str], str | None]]) -> Table:
    """Rows of (bundle, cells, style) under a line for each bundle. The first `texts` columns are left-aligned."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)  # borders would make it wider than a terminal
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right")
    previous = None
    for bundle, cells, style in rows:
        if bundle != previous:
            table.add_row(bundle, style="bold")
        table.add_row(f"  {cells[0]}", *cells[1:], style=style)
        previous = bundle
    return table


def _row_as_json(row: ResultRow) -> dict[str, object]:
    entry = json.loads(row.entry.model_dump_json()) if row.entry else {}
    return {
        **{name: getattr(row, name) for name in ("bundle", "engine", "verdict", "reason")},
        "file": entry.get("name"),
        **{name: entry.get(name) for name in ("bytes", "sha256", "batch", "parity")},
        **{name: getattr(row, name) for name in ("seconds", "milliseconds", "kept")},
    }


def _cells(row: ResultRow) -> tuple[str, ...]:
    entry, parity = row.entry, row.entry.parity if row.entry else None
    return (
        row.engine,
        row.verdict,
        "" if entry is None else f"{entry.bytes / 1e6:.1f}",
        "kept" if row.kept else "" if row.seconds is None else f"{row.seconds:.1f}",
        "" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        "" if parity is None else f"{1 - parity.cosine_min:.0e}",
        "" if parity is None or parity.mAP_difference is None else f"{parity.mAP_difference:+.2f}",
    )
