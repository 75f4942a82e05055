"""`pan-serve key`: create, list and revoke API keys, with the service running or stopped."""

import re
import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from service.cli.common import Data, err, handle_errors, out
from service.core.choices import Scope

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

_LONGEST = timedelta(days=36_525)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _expiry(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([hdw])", text)
    if match is None:
        raise typer.BadParameter(f"{text} is not a duration; give hours, days or weeks: 12h, 90d, 52w")
    if int(match[1]) > _LONGEST / _UNITS[match[2]]:
        raise typer.BadParameter(f"{text} is more than 100 years; omit --expires for a key that does not expire")
    return int(match[1]) * _UNITS[match[2]]


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise typer.BadParameter(
            f"{text} is not a valid name; use 1 to 64 letters, digits, dots, dashes and underscores"
        )
    return text


@app.command()
@handle_errors
def create(
    name: Annotated[str, typer.Argument(help="Name of the program or role, for the audit log.", parser=_name)],
    data: Data,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="Permission; may be repeated. Without a scope: /metrics, the model and gallery names."),
    ] = None,
    expires: Annotated[
        timedelta | None,
        typer.Option(help="Time until the key expires: 12h, 90d, 52w. Default: never.", parser=_expiry),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Limit of requests per second. Default: none.")] = None,
) -> None:
    """Create a key and print it once. It is valid at once, also for a running service."""
    from service.auth.keys import create_key
    from service.core.clock import now
    from service.storage.connection import connect_for_command
    from service.storage.data_dir import DATABASE, prepare_data_dir

    prepare_data_dir(data)
    expires_at = None if expires is None else now() + expires // timedelta(microseconds=1)
    with connect_for_command(data / DATABASE, create=True) as db:
        token = create_key(db, name, frozenset(scope or ()), rate, expires_at)
    sys.stdout.write(f"{token}\n")
    err.print(f"This is the key {name}. It is not stored and cannot be shown again.", highlight=False, soft_wrap=True)


@app.command("list")
@handle_errors
def list_(data: Data) -> None:
    """List all keys, also revoked and expired ones, without their secrets."""
    from rich.table import Table

    from service.auth.keys import list_keys
    from service.storage.connection import connect_for_command
    from service.storage.data_dir import DATABASE

    with connect_for_command(data / DATABASE) as db:
        found = list_keys(db)
    table = Table("name", "state", "scopes", "rate", "created", "expires")
    for key in found:
        scopes = " ".join(scope for scope in Scope if scope in key.scopes)
        rate = "" if key.rate is None else f"{key.rate:g}/s"
        table.add_row(key.name, key.state, scopes, rate, _day(key.created_at), _day(key.expires_at))
    out.print(table)


@app.command()
@handle_errors
def revoke(name: Annotated[str, typer.Argument(help="Name of the key, as `list` shows it.")], data: Data) -> None:
    """Revoke a key at once. Its name stays in the list and in the audit log."""
    from service.auth.keys import revoke_key
    from service.storage.connection import connect_for_command
    from service.storage.data_dir import DATABASE

    with connect_for_command(data / DATABASE) as db:
        revoke_key(db, name)
    out.print(f"revoked {name}", highlight=False)


def _day(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at / 1e6).astimezone().strftime("%Y-%m-%d %H:%M")
