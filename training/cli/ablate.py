"""`pan-train ablate`."""

from pathlib import Path
from typing import Annotated

import typer

from training.cli.common import errors
from training.errors import DataError
from training.experiments.ablation import run_table
from training.experiments.recipes import read_table


def ablate(
    table: Annotated[
        str,
        typer.Argument(
            help="table1 (part extraction), table2 (PAN and the methods it is compared with), table3, table4, table5 "
            "(Market-1501, CUHK03, DukeMTMC-reID), orthogonality (weight of the overlap term), or a YAML file."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Settings of every run; see `pan-train settings`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the table; a second call continues it. runs/TABLE when not given.")
    ] = None,
    data_root: Annotated[
        Path, typer.Option(help="Folder of the data sets that the recipes name; data.path=DIR names one by itself.")
    ] = Path("data"),
    row: Annotated[list[str] | None, typer.Option(help="Only these rows; may be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, with seeds 0, 1, ...")] = 2,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Such as cuda:0; given several times, the devices share the runs, one on each at a time."),
    ] = None,
) -> None:
    """Train a whole table of the paper, run by run, and write it as CSV and Markdown."""
    recipe = read_table(table)
    folder = out or Path("runs") / recipe.name
    failures = run_table(recipe, row or (), range(seeds), overrides or (), data_root, folder, device or (), errors)
    print((folder / "table.md").read_text(encoding="utf-8"))
    if failures:
        raise DataError("; ".join(failures))
