"""`pan-train`: run, resume, evaluate, report, ablate, inspect, synth, data check."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bundle import InputSpec, PanError
from training.checkpoint import load_checkpoint
from training.config import load_config
from training.data import read_data
from training.data.command import data_app
from training.distributed import leave
from training.embed import Embed, embed_data, torch_embedder
from training.errors import ConfigError, DataError
from training.model import VARIANTS
from training.report.command import report

if TYPE_CHECKING:
    from training.trainer import Trainer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Train and evaluate PAN."
)
app.add_typer(data_app, name="data")
app.command()(report)
errors = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@app.command()
def run(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as data.path=crops model.variant=pan_a optim.lr=0.05")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; must not hold one yet.")] = Path("runs/latest"),
    config: Annotated[Path | None, typer.Option(help="YAML file; overrides stand above it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a network and evaluate it. Ctrl-C saves the state; `pan-train resume` goes on exactly."""
    from training.trainer import STATE, WEIGHTS, Trainer

    if (out / STATE).exists() or (out / WEIGHTS).exists():
        raise ConfigError(f"{out} holds a run already; `pan-train resume {out}` goes on, or choose another --out")
    _train(Trainer(load_config(config, overrides or ()), out, errors), as_json)


@app.command()
def resume(run: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: AsJson = False) -> None:
    """Go on with a run that was stopped or killed, as if it had not been."""
    from training.trainer import CONFIG, STATE, Trainer

    if not (run / STATE).exists():
        raise ConfigError(f"{run} holds no {STATE}; begin the run with `pan-train run --out {run}`")
    trainer = Trainer(load_config(run / CONFIG), run, errors)
    trainer.resume()
    _train(trainer, as_json)


@app.command()
def evaluate(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .safetensors checkpoint or the folder of a run.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set with query and gallery.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Ready embeddings instead: .npz with query, query_id, query_camera and the same of gallery."),
    ] = None,
    histogram: Annotated[bool, typer.Option(help="Score the colour-histogram baseline on --data instead.")] = False,
    full: Annotated[
        bool, typer.Option(help="Also TPR at false-positive rates, open-set rates, each pair of cameras, calibration.")
    ] = False,
    query_expansion: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Also after adding each query's K nearest gallery rows to it."),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Also after k-reciprocal re-ranking.")] = False,
    as_json: AsJson = False,
) -> None:
    """CMC, mAP (both conventions) and mINP by the official rules."""
    from training.evaluate import evaluate as measure
    from training.evaluate import read_features

    if features is not None:
        embedded = read_features(features)
    elif data is None or (checkpoint is None and not histogram):
        raise ConfigError("give CHECKPOINT and --data DIR, or --histogram and --data DIR, or --features FILE.npz")
    else:
        embed, spec = _histogram() if checkpoint is None else _network(checkpoint)
        embedded = embed_data(embed, read_data(data), spec)
    outcome = measure(embedded, full=full, neighbours=query_expansion, reranked=rerank)
    if as_json:
        print(json.dumps(outcome.as_json()))
        return
    for table in outcome.tables():
        Console().print(table, soft_wrap=isinstance(table, str), highlight=False)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    train_identities: Annotated[int, typer.Option(min=2)] = 200,
    test_identities: Annotated[int, typer.Option(min=2)] = 60,
    cameras: Annotated[int, typer.Option(min=2)] = 4,
    crops_per_camera: Annotated[int, typer.Option(min=2)] = 4,
    height: Annotated[int, typer.Option(min=32)] = 128,
    width: Annotated[int, typer.Option(min=16)] = 64,
    seed: int = 0,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """Render synthetic people, seen by several cameras, in the Market-1501 layout. No photograph is involved."""
    from training.synth import generate

    with Progress(console=errors, disable=not errors.is_terminal) as bar:
        task = bar.add_task("rendering")
        generate(
            out,
            train_identities=train_identities,
            test_identities=test_identities,
            cameras=cameras,
            crops_per_camera=crops_per_camera,
            height=height,
            width=width,
            seed=seed,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    data = read_data(out)
    counts = {"train": len(data.train), "query": len(data.query), "gallery": len(data.gallery)}
    if as_json:
        print(json.dumps({"path": str(out), **counts}))
    else:
        print(f"{out}: " + ", ".join(f"{count} {side} crops" for side, count in counts.items()))


@app.command()
def ablate(
    table: Annotated[str, typer.Argument(help="table1 (part extraction) or table2 (PAN and its rivals).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for every run of the table.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the table; a second call goes on with it.")] = Path("runs/table"),
    config: Annotated[Path | None, typer.Option(help="YAML file; overrides stand above it.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants; may be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant, with seeds 0, 1, ...")] = 2,
) -> None:
    """Train a whole table of the paper, run by run, and write it as CSV and Markdown."""
    from training.ablate import ablate as run_table

    failures = run_table(table, variant or (), range(seeds), load_config(config, overrides or ()), out, errors)
    print((out / "table.md").read_text(encoding="utf-8") if (out / "table.md").exists() else "no run has finished")
    if failures:
        raise DataError("; ".join(failures))


@app.command()
def inspect(
    variants: Annotated[list[str] | None, typer.Argument(help="Names such as pan_c; all when none is given.")] = None,
    depth: Annotated[int, typer.Option(help="18, 34 or 50.")] = 50,
    width: Annotated[float, typer.Option(min=0.05, help="Factor on the backbone's channels.")] = 1.0,
    size: Annotated[str, typer.Option(help="Height x width of the input.")] = "384x128",
    measure: Annotated[bool, typer.Option(help="Also time a forward pass; the variants take turns.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a variant costs: parameters, operations, activation memory, time; the paper's Table 2 beside it."""
    from training import inspect as costs

    names = variants or list(VARIANTS)
    backbone = load_config(None, [f"model.depth={depth}", f"model.width={width}"]).model.network().backbone
    for name in names:
        load_config(None, [f"model.variant={name}"])  # refuses an unknown one, naming the nearest
    try:
        height, wide = (int(side) for side in size.lower().split("x"))
    except ValueError:
        raise ConfigError(f"--size {size} is not of the form HEIGHTxWIDTH, such as 384x128") from None
    times = costs.measure(names, backbone, height, wide) if measure else {}
    found = [
        replace(costs.inspect_variant(name, backbone, height, wide), ms_per_crop=times.get(name)) for name in names
    ]
    if as_json:
        print(json.dumps([costs.as_row(cost) for cost in found]))
        return
    table = Table("variant", "M parameters", "GFLOP", "GiB at batch 128", "ms a crop", "paper: M", "GiB", "s")
    for cost in found:
        paper = costs.PAPER.get(cost.variant)
        printed = (f"{paper.parameters}", f"{paper.memory}", f"{paper.seconds:g}") if paper else ("", "", "")
        time = "" if cost.ms_per_crop is None else f"{cost.ms_per_crop:.1f}"
        own = (f"{cost.parameters / 1e6:.2f}", f"{cost.gflop:.2f}", f"{cost.activation_gib:.2f}", time)
        table.add_row(cost.variant, *own, *printed)
    Console().print(table)


def _histogram() -> tuple[Embed, InputSpec]:
    from training.synth import histogram_features

    return histogram_features, InputSpec(height=128, width=64)


def _network(checkpoint: Path) -> tuple[Embed, InputSpec]:
    network, card = load_checkpoint(checkpoint)
    return torch_embedder(network, card.input), card.input


def _train(trainer: "Trainer", as_json: bool) -> None:
    from training.evaluate import ranking_table
    from training.trainer import WEIGHTS

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


def main() -> None:
    """Entry point: an expected error is one line on stderr and exit status 1; Ctrl-C is 130."""
    from training.stopping import Stopped

    rank = os.environ.get("RANK", "0")  # torchrun sets it
    try:
        app()
    except Stopped as stop:
        if rank == "0":
            errors.print(str(stop), markup=False, soft_wrap=True)
        sys.exit(130)
    except PanError as error:
        whose = f" in process {rank}" if "RANK" in os.environ else ""
        errors.print(f"error{whose}: {error}", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
