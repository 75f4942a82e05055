"""Options that several commands of `pan-export` take alike."""

from pathlib import Path
from typing import Annotated

import typer

from export.parity.gates import DEFAULTS

Data = Annotated[
    Path | None, typer.Option(help="Data set on whose test split it is measured; without it, synthetic people.")
]
Images = Annotated[int, typer.Option(min=2, help="Crops whose descriptors are compared.")]
Ranked = Annotated[int, typer.Option(min=2, help="About how many crops of --data are ranked, by whole persons.")]
Crops = Annotated[int, typer.Option(min=8, help="Training crops of --data from which INT8 takes its ranges.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Gate = Annotated[
    list[str] | None,
    typer.Option(
        help="PRECISION:COSINE[:POINTS[:CONSISTENCY]], the least cosine with PyTorch, the greatest loss of mAP and the "
        "least cosine of a crop with itself in another batch, in place of "
        + ", ".join(
            f"{name}:{gates.min_cosine:g}:{gates.max_mAP_loss:g}:{gates.min_consistency:g}"
            for name, gates in DEFAULTS.items()
        )
        + ". May be given several times."
    ),
]
