"""`pan-train data`: checks of a data set before training."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from training.data.check import Report, check_data

SHOWN = 3  # cases of a finding in the table; --json has all

data_app = typer.Typer(no_args_is_help=True, help="Check data sets.")


@data_app.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A data set: its folder, or a .csv or .mat file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Decode every crop and list problems for training and evaluation. Exit status 1 if one must be fixed."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=None)
        report = check_data(path, lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        print(json.dumps({**asdict(report), "usable": report.usable}))
    else:
        _show(report, f"{path.absolute()}/", Console())
    raise typer.Exit(0 if report.usable else 1)


def _show(report: Report, root: str, console: Console) -> None:
    title = f"{report.name} ({report.known_as})" if report.known_as else report.name
    sides = Table("", title=escape(title))
    for column in ("crops", "identities", "cameras"):
        sides.add_column(column, justify="right")
    for name, side in report.sides.items():
        sides.add_row(name, f"{side.crops:,}", f"{side.identities:,}", f"{side.cameras:,}")
    console.print(sides)
    if report.sizes:
        (low, high), (narrow, wide) = report.sizes.height[::2], report.sizes.width[::2]
        middle = f"{report.sizes.height[1]:g} x {report.sizes.width[1]:g}"
        slim, usual, stout = (f"{aspect:.2f}" for aspect in report.sizes.aspect)
        console.print(
            f"height {low:g} to {high:g}, width {narrow:g} to {wide:g}, median {middle} pixels; "
            f"height / width {slim} to {stout}, median {usual}"
        )
    if not report.findings:
        console.print("no findings")
        return
    findings = Table("", "finding", show_lines=True)
    findings.add_column("such as", overflow="fold")
    for finding in report.findings:
        more = len(finding.cases) - SHOWN
        cases = [*finding.cases[:SHOWN], *([f"and {more:,} more"] if more > 0 else [])]
        findings.add_row(
            "must fix" if finding.must_fix else "note",
            escape(finding.message),
            escape("\n".join(cases).replace(root, "")),
        )
    console.print(findings)
