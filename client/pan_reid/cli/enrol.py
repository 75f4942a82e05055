"""`pan-reid enrol`: enrol the crops in a folder."""

from pathlib import Path
from typing import Annotated

import typer

from pan_reid.cli.common import (
    LOCAL,
    Gallery,
    KeyFile,
    Url,
    connect,
    err,
    handle_errors,
    print_error,
    print_json,
)
from pan_reid.cli.galleries import IndexOption, KeepCrops, RetentionDays
from pan_reid.cli.values import given, parse_time, split_pair


@handle_errors
def enrol(
    folder: Annotated[Path, typer.Argument(help="Folder of crops named as in Market-1501, or person/camera_*.jpg.")],
    gallery: Gallery,
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a column `file` (path in the folder) and any of person_id, camera_id, captured_at; other "
            "columns are attributes. It takes precedence over the file names and the options below."
        ),
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Camera of crops whose file name has none.")] = None,
    captured_at: Annotated[
        str | None,
        typer.Option(
            "--time", metavar="TIME", help="Capture time of crops without one in --metadata.", parser=parse_time
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Attribute of all crops; may be repeated.")
    ] = None,
    index: IndexOption = None,
    retention_days: RetentionDays = None,
    keep_crops: KeepCrops = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops per request.")] = 32,
    in_flight: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 4,
    again: Annotated[
        bool, typer.Option("--again", help="Enrol crops even if the same command enrolled them in the last seven days.")
    ] = False,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts and the failures as JSON.")] = False,
) -> None:
    """Enrol all crops in a folder. Creates the gallery if it is missing, with --index, --retention-days, --keep-crops.

    A repeated command does not enrol a crop twice: each request has an idempotency key made from its content, which
    the service remembers for seven days.
    """
    from pan_reid.cli.enrol_folder import enrol_crops
    from pan_reid.cli.folder import describe, find_crops

    attributes = dict(split_pair("--attribute", pair) for pair in attribute or [])
    crops = describe(find_crops(folder), folder, metadata, given(camera_id=camera, captured_at=captured_at), attributes)
    _warn(len(crops), sum(crop.info.person_id is None for crop in crops), "person")
    _warn(len(crops), sum(crop.info.camera_id is None for crop in crops), "camera")
    settings = given(index=index, retention_days=retention_days, keep_crops=keep_crops)
    with connect(url, key_file) as client:
        failures = enrol_crops(client, crops, gallery, settings, batch, in_flight, err, again=again)
    for path, reason in failures:
        print_error(f"{path}: {reason}")
    if as_json:
        listed = [{"file": str(path), "error": reason} for path, reason in failures]
        print_json({"crops": len(crops), "enrolled": len(crops) - len(failures), "failures": listed})
    if failures:
        raise typer.Exit(1)


def _warn(crops: int, without: int, what: str) -> None:
    if without == crops:
        hint = "name files person/camera_*.jpg, or give --metadata" + (" or --camera" if what == "camera" else "")
        err.print(f"no crop has a {what}: {hint}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    elif without:
        err.print(f"{without:,} of {crops:,} crops have no {what}", markup=False, highlight=False, soft_wrap=True)
