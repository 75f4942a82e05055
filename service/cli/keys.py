"""`pan-serve key`: make, list and revoke API keys, beside a running service or before its first start."""

import re
import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from service.cli.common import Data, err, handle_errors, out
from service.core.choices import Scope

app = typer.Typer(no_args_is_help=True, help="API keys: who may do what.")

_LONGEST = timedelta(days=36_525)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _expiry(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([hdw])", text)
    if match is None:
        raise typer.BadParameter(f"{text} is no duration; give hours, days or weeks: 12h, 90d, 52w")
    if int(match[1]) > _LONGEST / _UNITS[match[2]]:
        raise typer.BadParameter(f"{text} is more than 100 years; leave --expires out for a key that never expires")
    return int(match[1]) * _UNITS[match[2]]


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise typer.BadParameter(
            f"{text} is no name of a key; it has up to 64 letters, digits, dots, dashes and underscores"
        )
    return text


@app.command()
@handle_errors
def create(
    name: Annotated[str, typer.Argument(help="For the audit: of a program or a role.", parser=_name)],
    data: Data,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it may do; may be repeated. Without any: read /metrics, the model and gallery names."),
    ] = None,
    expires: Annotated[
        timedelta | None, typer.Option(help="After 12h, 90d, 52w; never if left out.", parser=_expiry)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second; as many as come if left out.")
    ] = None,
) -> None:
    """Make a key and print it: the only time that it can be seen. A running service knows it at once."""
    from service.auth.keys import create_key
    from service.core.clock import now
    from service.storage.connection import connect_for_command
    from service.storage.data_dir import DATABASE, prepare_data_dir

    prepare_data_dir(data)
    expires_at = None if expires is None else now() + expires // timedelta(microseconds=1)
    with connect_for_command(data / DATABASE, create=True) as db:
        token = create_key(db, name, frozenset(scope or ()), rate, expires_at)
    sys.stdout.write(f"{token}\n")
    err.print(f"This is the key {name}; it is not kept and will not be shown again.", highlight=False, soft_wrap=True)


@app.command("list")
@handle_errors
def list_(data: Data) -> None:
    """Every key there is or was, without its secret."""
    from rich.table import Table

    from service.auth.keys import list_keys
    from service.storage.connection import connect_for_command
    from service.storage.data_dir import DATABASE

    with connect_for_command(data / DATABASE) as db:
        found = list_keys(db)
    table = Table("name", "state", "scopes", "rate", "made", "expires")
    for key in found:
        scopes = " ".join(scope for scope in Scope if scope in key.scopes)
        rate = "" if key.rate is None else f"{key.rate:g}/s"
        table.add_row(key.name, key.state, scopes, rate, _day(key.created_at), _day(key.expires_at))
    out.print(table)


@app.command()
@handle_errors
def revoke(name: Annotated[str, typer.Argument(help="As `list` shows it.")], data: Data) -> None:
    """From here on the key opens nothing. Its name stays in the list, and in the audit."""
    from service.auth.keys import revoke_key
    from service.storage.connection import connect_for_command
    from service.storage.data_dir import DATABASE

    with connect_for_command(data / DATABASE) as db:
        revoke_key(db, name)
    out.print(f"revoked {name}", highlight=False)


def _day(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at / 1e6).astimezone().strftime("%Y-%m-%d %H:%M")
