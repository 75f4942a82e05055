"""The options, the console and the JSON output that several commands of `pan-export` share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.bundles import MeasurementSettings
from export.parity import DEFAULTS, parse_gates

errors = Console(stderr=True, highlight=False)

Data = Annotated[
    Path | None, typer.Option(help="Data set whose test split is measured on. Without it: synthetic people.")
]
Images = Annotated[int, typer.Option(min=2, help="Number of crops whose descriptors are compared.")]
Ranked = Annotated[int, typer.Option(min=2, help="Approximate number of crops of --data to rank, by whole persons.")]
Crops = Annotated[int, typer.Option(min=8, help="Number of training crops of --data for INT8 calibration.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Gate = Annotated[
    list[str] | None,
    typer.Option(
        help="PRECISION:COSINE[:POINTS[:CONSISTENCY]]: the minimum cosine with PyTorch, the maximum loss of mAP in "
        "points, and the minimum cosine of a crop with itself in another batch. Defaults: "
        + ", ".join(
            f"{name}:{gates.min_cosine:g}:{gates.max_mAP_loss:g}:{gates.min_consistency:g}"
            for name, gates in DEFAULTS.items()
        )
        + ". May be given several times."
    ),
]


def measurement_settings(
    data: Path | None, images: int, ranked: int, calibration: int, gate: Sequence[str] | None
) -> MeasurementSettings:
    """The settings that the options of a command give. Raises ExportError for an invalid gate."""
    gates = parse_gates(gate or ())
    return MeasurementSettings(data=data, images=images, ranked=ranked, calibration=calibration, gates=gates)


def print_json(content: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(content))
