"""`pan-export verify`."""

from pathlib import Path
from typing import Annotated

import typer

from export.bundles import MeasurementSettings
from export.cli.common import AsJson, Data, Images, Ranked, errors, print_json
from export.cli.tables import show_verdicts, verdicts_as_json
from export.errors import ParityError
from export.verification import verify_bundle


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Compare with this checkpoint in PyTorch instead of the float32 ONNX file.")
    ] = None,
    data: Data = None,
    images: Images = 64,
    ranked: Ranked = 2000,
    as_json: AsJson = False,
) -> None:
    """Measure every engine of a bundle again on this machine, and apply the gates in its manifest."""
    with errors.status("reading the bundle") as status:
        measuring = MeasurementSettings(data=data, images=images, ranked=ranked)
        verdicts = verify_bundle(bundle, checkpoint, measuring, status.update)
    if as_json:
        print_json(verdicts_as_json(verdicts))
    else:
        show_verdicts(verdicts)
    if failed := [verdict.entry.label for verdict in verdicts if verdict.problem]:
        raise ParityError(f"failed on this machine: {', '.join(failed)}; export the checkpoint again")
