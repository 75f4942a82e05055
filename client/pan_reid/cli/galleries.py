"""`pan-reid galleries` (list, make, change, delete), `persons` and `erase`."""

from typing import Annotated, Literal

import typer

from pan_reid.cli.common import (
    LOCAL,
    GalleryName,
    Json,
    KeyFile,
    Url,
    Yes,
    connect,
    err,
    handle_errors,
    out,
    print_json,
    print_line,
)
from pan_reid.cli.values import given

app = typer.Typer(no_args_is_help=True, help="List, make, change and delete galleries.")

Index = Literal["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq"]
IndexOption = Annotated[
    Index | None, typer.Option(help="auto: exact search while that is fast, then an approximate index.")
]
Purpose = Annotated[str | None, typer.Option(help="Purpose of the gallery, for the record.")]
RetentionDays = Annotated[
    float | None, typer.Option(min=0.001, help="Days from its capture to the erasure of an entry.")
]
KeepCrops = Annotated[
    bool | None,
    typer.Option("--keep-crops/--no-keep-crops", help="Store the images of entries, or only their vectors."),
]


@app.command("list")
@handle_errors
def list_(url: Url = LOCAL, key_file: KeyFile = None, as_json: Json = False) -> None:
    """List all galleries."""
    with connect(url, key_file) as client:
        galleries = client.galleries()
    if as_json:
        print_json(galleries)
    else:
        from pan_reid.cli.tables import print_galleries

        print_galleries(galleries, out)


@app.command()
@handle_errors
def make(
    name: GalleryName,
    purpose: Purpose = None,
    index: IndexOption = None,
    retention_days: RetentionDays = None,
    keep_crops: KeepCrops = None,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Create an empty gallery."""
    options = given(purpose=purpose, index=index, retention_days=retention_days, keep_crops=keep_crops)
    with connect(url, key_file) as client:
        gallery = client.create_gallery(name, **options)
    if as_json:
        print_json(gallery)
    else:
        print_line(f"created gallery {gallery.name}")


@app.command()
@handle_errors
def change(
    name: GalleryName,
    purpose: Purpose = None,
    index: IndexOption = None,
    retention_days: RetentionDays = None,
    no_retention: Annotated[bool, typer.Option("--no-retention", help="Entries do not expire.")] = False,
    keep_crops: KeepCrops = None,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Change the given settings of a gallery. --no-keep-crops also erases stored images at once."""
    if no_retention and retention_days is not None:
        raise typer.BadParameter("give --retention-days or --no-retention, not both")
    changes = given(purpose=purpose, index=index, retention_days=retention_days, keep_crops=keep_crops)
    if no_retention:
        changes["retention_days"] = None
    if not changes:
        raise typer.BadParameter("nothing to change; give an option, see --help")
    with connect(url, key_file) as client:
        gallery = client.update_gallery(name, **changes)
    if as_json:
        print_json(gallery)
    else:
        print_line(f"changed gallery {gallery.name}")


@app.command()
@handle_errors
def delete(
    name: GalleryName, yes: Yes = False, url: Url = LOCAL, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """Erase a gallery with all its entries."""
    with connect(url, key_file) as client:
        if not yes:
            entries = client.gallery(name).entries
            typer.confirm(f"Erase gallery {name} with {entries:,} entries?", abort=True, err=True)
        receipt = client.delete_gallery(name)
    if as_json:
        print_json(receipt)
    else:
        print_line(f"erased gallery {name} with {receipt.entries:,} entries")


@handle_errors
def persons(gallery: GalleryName, url: Url = LOCAL, key_file: KeyFile = None, as_json: Json = False) -> None:
    """List the persons of a gallery."""
    with connect(url, key_file) as client:
        found = list(client.persons(gallery))
    if as_json:
        print_json(found)
    else:
        from pan_reid.cli.tables import print_persons

        print_persons(found, out)


@handle_errors
def erase(
    gallery: GalleryName,
    person: Annotated[str, typer.Argument(help="Id of the person.")],
    yes: Yes = False,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Erase all entries of a person in a gallery, and print the receipt."""
    if not yes:
        typer.confirm(f"Erase all entries of person {person} in gallery {gallery}?", abort=True, err=True)
    with connect(url, key_file) as client:
        receipt = client.erase_person(gallery, person)
    if as_json:
        print_json(receipt)
        return
    print_line(f"erased {receipt.entries:,} entries of person {person} in gallery {gallery} at {receipt.erased_at}")
    if not receipt.overwritten:
        err.print(
            "the write-ahead log of the database still has copies, until the next erasure or a restart", highlight=False
        )
