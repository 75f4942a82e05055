"""`pan-train inspect`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.cli.common import AsJson
from training.config import load_config
from training.distributed import choose_device
from training.errors import ConfigError
from training.experiments.cost import Cost, inspect_variant
from training.experiments.measured import Measured, measure
from training.experiments.paper import PRINTED
from training.model import VARIANTS

COLUMNS = ("parameters", "memory", "seconds")  # of the paper's Table 2


def inspect(
    variants: Annotated[list[str] | None, typer.Argument(help="Names such as pan_c; all when none is given.")] = None,
    depth: Annotated[int, typer.Option(help="18, 34 or 50.")] = 50,
    width: Annotated[float, typer.Option(min=0.05, help="Factor on the backbone's channels.")] = 1.0,
    size: Annotated[str, typer.Option(help="Height x width of the input.")] = "384x128",
    measured: Annotated[
        bool,
        typer.Option("--measure", help="Also time a forward pass, and on a GPU measure the memory of training."),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; for --measure.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show the cost of each variant: parameters, operations, memory, time; and what Table 2 of the paper prints."""
    names = variants or list(VARIANTS)
    backbone = load_config(None, [f"model.depth={depth}", f"model.width={width}"]).model.network().backbone
    for name in names:
        load_config(None, [f"model.variant={name}"])  # refuses an unknown one, naming the nearest
    try:
        height, wide = (int(side) for side in size.lower().split("x"))
    except ValueError:
        raise ConfigError(f"--size {size} is not of the form HEIGHTxWIDTH, such as 384x128") from None
    counted = [inspect_variant(name, backbone, height, wide) for name in names]
    found = measure(names, backbone, height, wide, choose_device(device)) if measured else {}
    if as_json:
        print(json.dumps([_row(cost, found.get(cost.variant)) for cost in counted]))
        return
    console = Console()
    console.print(_ours(counted, found))
    if any(name in PRINTED["table2"] for name in names):
        console.print(_printed(names))


def _row(cost: Cost, measured: Measured | None) -> dict[str, object]:
    paper = PRINTED["table2"].get(cost.variant)
    times = {"ms_per_crop": None, "training_gib": None} if measured is None else asdict(measured)
    return asdict(cost) | times | {"paper": paper and {name: getattr(paper, name) for name in COLUMNS}}


def _ours(counted: list[Cost], measured: dict[str, Measured]) -> Table:
    headings = ["variant", "M parameters", "GFLOP", "GiB of activations at batch 128"]
    table = Table(*headings, *(["ms a crop", "peak GiB in training at batch 128"] if measured else []))
    for cost in counted:
        cells = [cost.variant, f"{cost.parameters / 1e6:.2f}", f"{cost.gflop:.2f}", f"{cost.activation_gib:.2f}"]
        if found := measured.get(cost.variant):
            cells += [f"{found.ms_per_crop:.1f}", "" if found.training_gib is None else f"{found.training_gib:.2f}"]
        table.add_row(*cells)
    return table


def _printed(names: list[str]) -> Table:
    title = "Printed in the paper (Table 2; test on one Quadro GV100)"
    table = Table("variant", "M parameters", "GiB at batch 128", "s for the test", title=title, title_justify="left")
    for name in names:
        if paper := PRINTED["table2"].get(name):
            table.add_row(name, *(f"{getattr(paper, column):g}" for column in COLUMNS))
    return table
