"""`pan-serve check`: what is wrong with the database of a stopped service, and its repair."""

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
            help="Normalise vectors, bring times within the years 1 to 9999, replace what is not UTF-8, "
            "empty attributes that cannot be read; "
            "mend a gallery's name, dimension, index, time and retention; delete galleries of no usable model, "
            "entries without a usable vector, pictures that cannot be read, and rows that belong to nothing.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Examine the database of a stopped service. Exit status 1 where something is wrong, or left after a repair."""
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
            continue  # it is not read
        sound = one.entries - len(one.damaged)
        out.print(f"gallery {one.name}: {sound:,} of {one.entries:,} entries are sound", highlight=False)
    if found.ok:
        out.print("nothing is wrong", highlight=False)
    elif repair and left.ok:
        out.print("repaired; the audit says how many entries were mended and deleted", highlight=False)
    elif not found.broken:
        print_error("pan-serve check --repair does what is said above; make a backup before")


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
        yield f"entry {entry_id}: its kept picture cannot be read (repair: delete the picture)"
    if found.orphans:
        yield f"{len(found.orphans):,} rows belong to no entry or gallery (repair: delete them)"


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
        "rows_of_nothing": [{"table": table, "row": rowid} for table, rowid in found.orphans],
    }
