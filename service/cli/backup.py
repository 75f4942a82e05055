"""`pan-serve backup`, `restore` and `vacuum`: copy, replace and shrink the database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.common import Data, handle_errors, out, print_error

if TYPE_CHECKING:
    from service.storage.integrity import GalleryReport


@handle_errors
def backup(to: Annotated[Path, typer.Argument(help="File to write; it must not exist.")], data: Data) -> None:
    """Copy galleries, keys and the audit log to one verified file. The service may be running."""
    from service.storage.backup import create_backup

    galleries = create_backup(data, to)
    out.print(f"wrote {to}", highlight=False, soft_wrap=True)
    _show(galleries)


@handle_errors
def restore(
    backup: Annotated[Path, typer.Argument(help="File that `pan-serve backup` wrote.")],
    data: Data,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle for the restored galleries; a gallery of another model is an error.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the database in the folder.")] = False,
) -> None:
    """Verify a backup and make it the database of a stopped service."""
    from bundle import load_bundle
    from service.storage.backup import restore_backup

    fingerprint = None if bundle is None else load_bundle(bundle).manifest.model.fingerprint
    galleries = restore_backup(backup, data, replace=force, fingerprint=fingerprint)
    out.print(
        f"restored {backup}; repeat the erasures that were made after the backup", highlight=False, soft_wrap=True
    )
    _show(galleries)


@handle_errors
def vacuum(data: Data) -> None:
    """Return the space of deleted data to the file system. The service must be stopped."""
    from service.storage.backup import vacuum as vacuum_database

    before, after = vacuum_database(data)
    out.print(f"{before / 2**20:,.1f} MiB before, {after / 2**20:,.1f} MiB after", highlight=False)


def _show(galleries: "list[GalleryReport]") -> None:
    from rich.table import Table

    from service.storage.entry_integrity import first_few

    table = Table("gallery", "entries", "model")
    for one in galleries:
        table.add_row(one.name, f"{one.entries:,}", one.fingerprint[:12])
    out.print(table)
    for one in galleries:
        if one.damage is not None:
            print_error(f"gallery {one.name} is damaged and not served: {one.damage.problem}; run `pan-serve check`")
        if one.damaged:
            print_error(
                f"gallery {one.name} has {len(one.damaged)} damaged entries. They are copied but not searched: "
                f"{first_few(one.damaged)}; see `pan-serve check`"
            )
