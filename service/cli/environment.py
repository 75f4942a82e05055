"""Options of `pan-serve` as environment variables: `--max-batch` is `PAN_MAX_BATCH`."""

import os
from difflib import get_close_matches
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

PREFIX = "PAN"

_NOT_OF_THE_SERVICE = {"PAN_API_KEY", "PAN_REID_DATA"}  # read by the client and by the tests


class EnvironmentCommand(TyperCommand):
    """A command whose every option can be set by the variable PAN_ and its name; the command line takes precedence."""

    settings: ClassVar[dict[str, Any]] = {"auto_envvar_prefix": PREFIX}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse options. A wrong value from a variable raises BadParameter that names the variable."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            param: Any = error.param
            if param is not None and source(ctx, param) == "environment":
                error.param_hint = f"the environment variable {used_variable(param)}"
                if param.is_flag:
                    error.message += "; give true or false"
            elif param is not None and param.required and ctx.params.get(param.name) is None:
                error.param_hint = f"'{param.opts[0]}' (or the environment variable {variables(param)[0]})"
            raise


def variables(param: Any) -> list[str]:
    """The variables that set an option, in order of precedence."""
    if param.envvar is None:
        return [f"{PREFIX}_{param.name.upper()}"]
    return [param.envvar] if isinstance(param.envvar, str) else list(param.envvar)


def used_variable(param: Any) -> str:
    """The variable that sets an option at present."""
    return next(name for name in variables(param) if os.environ.get(name))


def source(ctx: Any, param: Any) -> str:
    """The origin of an option's value: flag, environment or default."""
    found = ctx.get_parameter_source(param.name)
    return {"COMMANDLINE": "flag", "ENVIRONMENT": "environment"}.get(found.name if found else "", "default")


def unknown_variables(params: list[Any]) -> list[str]:
    """A sentence for each set variable PAN_* that no option reads, with the most similar name."""
    known = [name for param in params for name in variables(param)]
    messages = []
    for name in sorted(os.environ):
        if name.startswith(f"{PREFIX}_") and name not in known and name not in _NOT_OF_THE_SERVICE:
            near = get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"; did you mean {near[0]}?" if near else "; `pan-serve config` lists the settings"
            messages.append(f"the environment variable {name} is not a setting of pan-serve{hint}")
    return messages
