"""`pan-train report RUN`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

REPORT = "report.html"


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path | None, typer.Option(help=f"File to write; RUN/{REPORT} when not given.")] = None,
    data: Annotated[Path | None, typer.Option(help="Measure on this data set instead of the run's own.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Folder of `pan-train ablate`, for its table; the one the run lies in when not given."),
    ] = None,
    without_pam: Annotated[
        Path | None,
        typer.Option(help="A run without part-aware attention (baseline), for the comparison of the paper's figure 5."),
    ] = None,
    crops: Annotated[bool, typer.Option("--crops/--no-crops", help="Show pictures of people; or charts only.")] = True,
) -> None:
    """Show a run as one HTML page: curves, CMC, similarities, ranked lists, part masks, compatibility maps.

    The page holds everything it shows and loads nothing. It shows crops of people from the data set: keep it and pass
    it on as you would the crops, or leave every picture out with --no-crops.
    """
    from training.report.page import render

    errors = Console(stderr=True, highlight=False)
    with Progress(console=errors, disable=not errors.is_terminal) as bar:
        task = bar.add_task("embedding", total=None)
        page = render(
            run,
            data,
            table,
            crops=crops,
            without_pam=without_pam,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if page.warning:
        errors.print(f"warning: {page.warning}", markup=False, soft_wrap=True)
    file = out or run / REPORT
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page.html, encoding="utf-8")
    print(f"wrote {file}" + (", which shows crops of people" if page.shows_people else ""))
