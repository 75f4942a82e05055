"""`pan-serve config`: the settings that `pan-serve run` would use, and the origin of each."""

import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from service.cli.common import handle_errors, out, print_error
from service.cli.environment import source, unknown_variables, used_variable, variables


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of `pan-serve run` with its value. `source` is flag, environment, default or missing."""

    name: str
    flag: str
    variable: str
    value: Any
    source: str
    meaning: str


@handle_errors
def config(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False
) -> None:
    """Show each setting of `pan-serve run`: its value, the origin of the value, and its meaning.

    Accepts the options of `pan-serve run`: `pan-serve config --max-batch 64`. Each option is also an environment
    variable: --max-batch is PAN_MAX_BATCH. The option takes precedence.
    """
    import orjson

    assert ctx.parent is not None
    group: Any = ctx.parent.command
    run = group.commands["run"]
    settings = _resolve(run, ctx.args)
    for message in unknown_variables(run.params):
        print_error(message)
    if as_json:
        shown = {"settings": [asdict(one) for one in settings]}
        sys.stdout.write(orjson.dumps(shown, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
    else:
        _print(settings)


def _resolve(run: Any, arguments: list[str]) -> list[Setting]:
    """The result of the parser of `run` for these arguments and the environment."""
    required = {param.name for param in run.params if param.required}
    for param in run.params:
        param.required = False
    with run.make_context("pan-serve run", list(arguments)) as ctx:
        settings = []
        for param in run.params:
            value, origin = ctx.params[param.name], source(ctx, param)
            variable = used_variable(param) if origin == "environment" else variables(param)[0]
            if value is None and param.name in required:
                origin = "missing"
            meaning = param.help.replace("\\[", "[")
            settings.append(Setting(param.name, param.opts[0], variable, value, origin, meaning))
    return settings


def _print(settings: list[Setting]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "from", "meaning")
    for one in settings:
        origin = {"environment": one.variable, "flag": one.flag}.get(one.source, one.source)
        table.add_row(one.flag, Text(_text(one.value)), origin, Text(one.meaning))
    out.print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
