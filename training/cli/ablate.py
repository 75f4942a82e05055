"""`pan-train ablate`."""

from pathlib import Path
from typing import Annotated

import typer

from training.cli.common import errors
from training.config import load_config
from training.errors import DataError
from training.experiments.ablation import run_table


def ablate(
    table: Annotated[
        str, typer.Argument(help="table1 (part extraction) or table2 (PAN and the methods it is compared with).")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Settings of every run; see `pan-train settings`.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the table; a second call continues it.")] = Path("runs/table"),
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; the command line overrides it.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants; may be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant, with seeds 0, 1, ...")] = 2,
) -> None:
    """Train a whole table of the paper, run by run, and write it as CSV and Markdown."""
    failures = run_table(table, variant or (), range(seeds), load_config(config, overrides or ()), out, errors)
    print((out / "table.md").read_text(encoding="utf-8") if (out / "table.md").exists() else "no run has finished")
    if failures:
        raise DataError("; ".join(failures))
