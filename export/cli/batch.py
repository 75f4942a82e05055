"""`pan-export batch`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.batch import ResultRow, plan_actions, read_plan, run_batch
from export.batch.summary import actions_table, failed, reasons, results_table, summary_as_json, write_summary
from export.cli.common import AsJson, errors, print_json
from export.errors import ExportError


def batch(
    plan: Annotated[Path, typer.Argument(help="YAML: checkpoints, engines, batch profiles, gates.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what a run would do; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export many checkpoints to many engines, one bundle per checkpoint; every engine is compared with PyTorch.

    A second run keeps finished engines and tries failed ones again. The exit status is 1 if any engine failed.
    """
    out, jobs = read_plan(plan)
    if dry_run:
        actions = plan_actions(out, jobs)
        if as_json:
            print_json([{"bundle": job.name, "engine": engine, "action": text} for job, engine, text in actions])
        else:
            Console().print(actions_table(actions))
        return
    rows: list[ResultRow] = []
    with errors.status("reading the plan") as status:
        for made in run_batch(out, jobs, status.update):
            rows += made
            write_summary(out, rows)
    if as_json:
        print_json(summary_as_json(rows))
    else:
        Console().print(results_table(rows))
        for reason in reasons(rows):
            print(reason)
        print(f"wrote {out}: {len(jobs)} bundles, summary.json, summary.md")
    if wrong := failed(rows):
        raise ExportError(
            f"{len(wrong)} of {len(rows)} engines failed; fix the cause and run the command again; "
            "finished engines are kept"
        )
