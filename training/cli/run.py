"""`pan-train run` and `pan-train resume`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.cli.common import AsJson, errors
from training.cli.evaluation_tables import ranking_table
from training.config import load_config
from training.distributed import leave
from training.errors import ConfigError
from training.trainer import CONFIG, STATE, WEIGHTS, Trainer


def run(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as data.path=crops model.variant=pan_a optim.lr=0.05")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; must not hold one yet.")] = Path("runs/latest"),
    config: Annotated[Path | None, typer.Option(help="YAML file; overrides stand above it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a network and evaluate it. Ctrl-C saves the state; `pan-train resume` goes on exactly."""
    if (out / STATE).exists() or (out / WEIGHTS).exists():
        raise ConfigError(f"{out} holds a run already; `pan-train resume {out}` goes on, or choose another --out")
    _train(Trainer(load_config(config, overrides or ()), out, errors), as_json)


def resume(run: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: AsJson = False) -> None:
    """Go on with a run that was stopped or killed, as if it had not been."""
    if not (run / STATE).exists():
        raise ConfigError(f"{run} holds no {STATE}; begin the run with `pan-train run --out {run}`")
    trainer = Trainer(load_config(run / CONFIG), run, errors)
    trainer.resume()
    _train(trainer, as_json)


def _train(trainer: Trainer, as_json: bool) -> None:
    evaluation, weights = trainer.run().evaluation, trainer.out / WEIGHTS
    leave()
    if not trainer.world.first:
        return
    if as_json:
        shown = None if evaluation is None else json.loads(evaluation.model_dump_json())
        print(json.dumps({"checkpoint": str(weights), "evaluation": shown}))
        return
    if evaluation is not None:
        Console().print(ranking_table(evaluation))
    print(f"wrote {weights}")
