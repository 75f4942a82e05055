"""`pan-serve backup`, `restore` and `vacuum`: the file that all galleries are in, copied, brought back and shrunk."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.common import Data, handle_errors, out, print_error

if TYPE_CHECKING:
    from service.storage.integrity import GalleryReport


@handle_errors
def backup(to: Annotated[Path, typer.Argument(help="The file to write; must not be there yet.")], data: Data) -> None:
    """Copy galleries, keys and audit into one checked file, beside a running service."""
    from service.storage.backup import create_backup

    held = create_backup(data, to)
    out.print(f"wrote {to}", highlight=False, soft_wrap=True)
    _show(held)


@handle_errors
def restore(
    backup: Annotated[Path, typer.Argument(help="A file that `pan-serve backup` wrote.")],
    data: Data,
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle that will serve it: a gallery of another model is refused.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Give up the database that the folder holds.")] = False,
) -> None:
    """Check a backup and make it the database of a stopped service."""
    from bundle import load_bundle
    from service.storage.backup import restore_backup

    fingerprint = None if bundle is None else load_bundle(bundle).manifest.model.fingerprint
    held = restore_backup(backup, data, replace=force, fingerprint=fingerprint)
    out.print(f"restored {backup}; erase again who was erased after it was made", highlight=False, soft_wrap=True)
    _show(held)


@handle_errors
def vacuum(data: Data) -> None:
    """Give the room of what was deleted back to the disk; the service must be stopped."""
    from service.storage.backup import vacuum as vacuum_database

    before, after = vacuum_database(data)
    out.print(f"{before / 2**20:,.1f} MiB before, {after / 2**20:,.1f} MiB after", highlight=False)


def _show(held: "list[GalleryReport]") -> None:
    from rich.table import Table

    from service.storage.entry_integrity import first_few

    table = Table("gallery", "entries", "model")
    for one in held:
        table.add_row(one.name, f"{one.entries:,}", one.fingerprint[:12])
    out.print(table)
    for one in held:
        if one.damage is not None:
            print_error(f"gallery {one.name} is damaged and not served: {one.damage.problem}; run `pan-serve check`")
        if one.damaged:
            print_error(
                f"gallery {one.name} has {len(one.damaged)} damaged entries, which are kept and answer no search: "
                f"{first_few(one.damaged)}; see `pan-serve check`"
            )
