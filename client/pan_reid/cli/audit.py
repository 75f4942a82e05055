"""`pan-reid audit`: list the audit log."""

from datetime import datetime
from itertools import islice
from typing import Annotated

import typer

from pan_reid.cli.common import LOCAL, Json, KeyFile, Url, connect, handle_errors, out, print_json
from pan_reid.cli.values import parse_time


@handle_errors
def audit(
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Only records of this time or later; a date is midnight, UTC.",
            parser=parse_time,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only records before this time.", parser=parse_time)
    ] = None,
    caller: Annotated[str | None, typer.Option(help="Only this key, or the address of callers without a key.")] = None,
    gallery: Annotated[str | None, typer.Option(help="Only this gallery.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action: search, enrol, erase-person, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of records.")] = 100,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """List searches, comparisons, changes and exports in the audit log, newest first. Needs scope admin."""
    with connect(url, key_file) as client:
        records = client.audit(
            since=None if since is None else datetime.fromisoformat(since),
            until=None if until is None else datetime.fromisoformat(until),
            caller=caller,
            gallery=gallery,
            action=action,
        )
        found = list(islice(records, limit))
    if as_json:
        print_json(found)
    else:
        from pan_reid.cli.tables import print_audit

        print_audit(found, out)
