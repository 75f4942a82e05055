"""`pan-train run` and `pan-train resume`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.cli.common import AsJson, errors
from training.cli.evaluation_tables import ranking_table
from training.config import load_config
from training.distributed import shutdown
from training.errors import ConfigError
from training.trainer import CONFIG, STATE, WEIGHTS, Trainer


def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE", help="Settings, such as data.path=crops model.variant=pan_a; all are listed below."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; must not contain a run yet.")] = Path("runs/latest"),
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; the command line overrides it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a network and evaluate it. Ctrl-C saves the state; `pan-train resume` continues from it."""
    if (out / STATE).exists() or (out / WEIGHTS).exists():
        raise ConfigError(
            f"{out} contains a run already; continue it with `pan-train resume {out}`, or choose another --out"
        )
    _train(Trainer(load_config(config, overrides or ()), out, errors), as_json)


def resume(run: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: AsJson = False) -> None:
    """Continue a run that was stopped or killed; the result is the same as without the interruption."""
    if not (run / STATE).exists():
        raise ConfigError(f"{run} has no {STATE}; start the run with `pan-train run --out {run}`")
    trainer = Trainer(load_config(run / CONFIG), run, errors)
    trainer.resume()
    _train(trainer, as_json)


def _train(trainer: Trainer, as_json: bool) -> None:
    evaluation, weights = trainer.run().evaluation, trainer.out / WEIGHTS
    shutdown()
    if not trainer.world.is_main:
        return
    if as_json:
        shown = None if evaluation is None else json.loads(evaluation.model_dump_json())
        print(json.dumps({"checkpoint": str(weights), "evaluation": shown}))
        return
    if evaluation is not None:
        Console().print(ranking_table(evaluation))
    print(f"wrote {weights}")
