"""`pan-serve check`: find and repair damage in the database of a stopped service."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.common import Data, handle_errors, out, print_error

if TYPE_CHECKING:
    from service.storage.check import CheckReport

_SHOWN = 20  # entries of a gallery


@handle_errors
def check(
    data: Data,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Normalise vectors, clip times to the years 1 to 9999, replace invalid UTF-8, clear unreadable "
            "attributes, and correct the name, dimension, index, time and retention of galleries. Delete galleries "
            "without a valid model, entries without a usable vector, unreadable images, and orphaned rows.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Examine the database of a stopped service. Exit status 1: damage was found, or is left after a repair."""
    import orjson

    from service.storage.check import check as examine
    from service.storage.check import repair as mend

    found, left = mend(data) if repair else (examine(data),) * 2
    if as_json:
        answer = {**_view(found), "repaired": repair and not found.ok and left.ok}
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(found, left, repair)
    if not left.ok:
        raise typer.Exit(1)


def _show(found: "CheckReport", left: "CheckReport", repair: bool) -> None:
    for line in _lines(found):
        print_error(line)
    for one in found.galleries:
        if one.damage is not None and one.damage.repair is None:
            continue  # its entries were not read
        sound = one.entries - len(one.damaged)
        out.print(f"gallery {one.name}: {sound:,} of {one.entries:,} entries are undamaged", highlight=False)
    if found.ok:
        out.print("no damage found", highlight=False)
    elif repair and left.ok:
        out.print("repaired; the audit log has the numbers of repaired and deleted entries", highlight=False)
    elif not found.broken:
        print_error("pan-serve check --repair makes the repairs listed above; make a backup first")


def _lines(found: "CheckReport") -> Iterator[str]:
    for problem in found.broken:
        yield f"database: {problem}"
    for gallery in found.galleries:
        if gallery.damage is not None:
            whole = f"gallery {gallery.name} with {gallery.entries:,} entries: {gallery.damage.problem}"
            yield f"{whole} (repair: {gallery.damage.remedy})"
        for one in gallery.damaged[:_SHOWN]:
            yield f"gallery {gallery.name}, entry {one.entry_id}: {one.problem} (repair: {one.remedy})"
        if len(gallery.damaged) > _SHOWN:
            yield f"gallery {gallery.name}: {len(gallery.damaged) - _SHOWN:,} more; --json shows all"
    for entry_id in found.unreadable_crops[:_SHOWN]:
        yield f"entry {entry_id}: its stored image cannot be read (repair: delete the image)"
    if found.orphans:
        yield f"{len(found.orphans):,} orphaned rows (repair: delete them)"


def _view(found: "CheckReport") -> dict[str, Any]:
    return {
        "ok": found.ok,
        "database": found.broken,
        "galleries": [
            {
                "name": gallery.name,
                "entries": gallery.entries,
                "damage": gallery.damage and {"problem": gallery.damage.problem, "repair": gallery.damage.remedy},
                "damaged": [
                    {"entry_id": one.entry_id, "problem": one.problem, "repair": one.remedy} for one in gallery.damaged
                ],
            }
            for gallery in found.galleries
        ],
        "unreadable_pictures": found.unreadable_crops,
        "orphaned_rows": [{"table": table, "row": rowid} for table, rowid in found.orphans],
    }
