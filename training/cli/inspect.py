"""`pan-train inspect`."""

import json
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.cli.common import AsJson
from training.config import load_config
from training.errors import ConfigError
from training.experiments import cost as costs
from training.experiments.paper import PRINTED
from training.model import VARIANTS


def inspect(
    variants: Annotated[list[str] | None, typer.Argument(help="Names such as pan_c; all when none is given.")] = None,
    depth: Annotated[int, typer.Option(help="18, 34 or 50.")] = 50,
    width: Annotated[float, typer.Option(min=0.05, help="Factor on the backbone's channels.")] = 1.0,
    size: Annotated[str, typer.Option(help="Height x width of the input.")] = "384x128",
    measure: Annotated[bool, typer.Option(help="Also time a forward pass; the variants take turns.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a variant costs: parameters, operations, activation memory, time; the paper's Table 2 beside it."""
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
        paper = PRINTED["table2"].get(cost.variant)
        printed = (f"{paper.parameters}", f"{paper.memory}", f"{paper.seconds:g}") if paper else ("", "", "")
        time = "" if cost.ms_per_crop is None else f"{cost.ms_per_crop:.1f}"
        own = (f"{cost.parameters / 1e6:.2f}", f"{cost.gflop:.2f}", f"{cost.activation_gib:.2f}", time)
        table.add_row(cost.variant, *own, *printed)
    Console().print(table)
