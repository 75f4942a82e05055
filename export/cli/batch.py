"""`pan-export batch`: options and output."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.batch.plan import read_plan
from export.batch.runner import ResultRow, plan_actions, run_batch
from export.batch.summary import actions_table, failed, reasons, summary_as_json, table, write_summary
from export.cli.options import AsJson
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
            print(
                json.dumps([{"bundle": job.name, "engine": label, "action": action} for job, label, action in actions])
            )
        else:
            Console().print(actions_table(actions))
        return
    results: list[ResultRow] = []
    with Console(stderr=True, highlight=False).status("reading the plan") as status:
        for rows in run_batch(out, jobs, status.update):
            results += rows
            write_summary(out, results)
    if as_json:
        print(json.dumps(summary_as_json(results)))
    else:
        Console().print(table(results))
        for reason in reasons(results):
            print(reason)
        print(f"wrote {out}: {len(jobs)} bundles, summary.json, summary.md")
    if wrong := failed(results):
        raise ExportError(
            f"{len(wrong)} of {len(results)} engines failed; fix the cause and run the command again; "
            "finished engines are kept"
        )
