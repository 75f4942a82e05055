"""`pan-train synth`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from training.cli.common import AsJson, errors
from training.data import read_data
from training.synth import LAYOUTS, generate


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    train_identities: Annotated[int, typer.Option(min=2)] = 200,
    test_identities: Annotated[int, typer.Option(min=2)] = 60,
    cameras: Annotated[int, typer.Option(min=2)] = 4,
    crops_per_camera: Annotated[int, typer.Option(min=2)] = 4,
    height: Annotated[int, typer.Option(min=32)] = 128,
    width: Annotated[int, typer.Option(min=16)] = 64,
    seed: int = 0,
    layout: Annotated[
        str, typer.Option(help=f"Folders and names of a public data set: {', '.join(LAYOUTS)}.")
    ] = "market1501",
    workers: Annotated[int, typer.Option(min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """Render synthetic people, seen by several cameras, in the layout of a public data set. No photograph is used."""
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
            layout=layout,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    data = read_data(out / "labeled" if layout == "cuhk03" else out)
    counts = {"train": len(data.train), "query": len(data.query), "gallery": len(data.gallery)}
    if as_json:
        print(json.dumps({"path": str(out), **counts}))
    else:
        print(f"{out}: " + ", ".join(f"{count} {side} crops" for side, count in counts.items()))
