"""`pan-export batch`: what the user types, and what is printed."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.batch.plan import read_plan
from export.batch.runner import Seen, foresee, run_batch
from export.batch.summary import failed, foreseen, reasons, summary_as_json, table, write_summary
from export.cli.options import AsJson
from export.errors import ExportError


def batch(
    plan: Annotated[Path, typer.Argument(help="YAML: checkpoints, engines, batch profiles, gates.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export many checkpoints to many engines: one bundle each, measured like any other.

    What is finished is kept, what failed is tried again. The exit status is 1 if any engine failed.
    """
    out, jobs = read_plan(plan)
    if dry_run:
        fates = foresee(out, jobs)
        if as_json:
            print(json.dumps([{"bundle": job.name, "engine": label, "fate": fate} for job, label, fate in fates]))
        else:
            Console().print(foreseen(fates))
        return
    seen: list[Seen] = []
    with Console(stderr=True, highlight=False).status("reading the plan") as status:
        for rows in run_batch(out, jobs, status.update):
            seen += rows
            write_summary(out, seen)
    if as_json:
        print(json.dumps(summary_as_json(seen)))
    else:
        Console().print(table(seen))
        for reason in reasons(seen):
            print(reason)
        print(f"wrote {out}: {len(jobs)} bundles, summary.json, summary.md")
    if wrong := failed(seen):
        raise ExportError(
            f"{len(wrong)} of {len(seen)} engines failed; mend that and run the same command again, the rest is kept"
        )
