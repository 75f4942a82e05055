"""Methods made of functions that describe calls: same name, same parameters, same words."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args

F = TypeVar("F", bound=Callable[..., Any])


def like(described: Callable[..., Any], many: Any = None) -> Callable[[F], F]:
    """Let a method show itself as what it is made of; it answers what the call does, or an iterator (`many`) of it."""
    signature = inspect.signature(described)
    (item,) = get_args(signature.return_annotation)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)

    def named(method: F) -> F:
        method.__name__, method.__doc__ = described.__name__, described.__doc__
        method.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[itself, *signature.parameters.values()], return_annotation=many[item] if many else item
        )
        return method

    return named
