"""Values of options: times, pairs, boxes, images and vectors from text and files. All raise BadParameter."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pan_reid.vectors import Vectors


def parse_time(text: str) -> str:
    """A time in the form of the API. A date without a time is midnight, UTC."""
    with suppress(ValueError):
        return datetime.combine(date.fromisoformat(text), time(), UTC).isoformat()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is not a time; give one like 2024-05-01T08:00:00Z, or a date") from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text} has no time zone; for UTC give {text}Z")
    return at.isoformat()


def parse_box(text: str) -> list[float]:
    """X,Y,WIDTH,HEIGHT in pixels."""
    try:
        box = [float(number) for number in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4:
        raise typer.BadParameter(f"{text} is not a box; give X,Y,WIDTH,HEIGHT in pixels, like 412,80,96,250")
    return box


def parse_scalar(text: str) -> Any:
    """A number, boolean or null in JSON; any other text is itself."""
    from pydantic_core import from_json

    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return text if isinstance(value, str | list | dict) else value


def split_pair(option: str, pair: str) -> tuple[str, str]:
    """NAME=VALUE as its two parts."""
    name, equals, text = pair.partition("=")
    if not equals:
        raise typer.BadParameter(f"{option} {pair}: give NAME=VALUE")
    return name, text


def parse_attributes(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """NAME=VALUE pairs as allowed values by name: each text, and the scalar that it is in JSON."""
    wanted: dict[str, list[Any]] = {}
    for pair in pairs:
        name, text = split_pair("--attribute", pair)
        values = wanted.setdefault(name, [])
        values.append(text)
        if (scalar := parse_scalar(text)) != text:
            values.append(scalar)
    return wanted


def read_images(paths: Sequence[Path]) -> list[bytes]:
    """The bytes of files."""
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise typer.BadParameter(str(error)) from None


def read_vectors(paths: Sequence[Path]) -> "Vectors":
    """(n, dim) float32: the vectors in all files, which have (dim,) or (n, dim) numbers in .npy or JSON."""
    import numpy as np

    arrays = [np.atleast_2d(_read_array(path)) for path in paths]
    if len({array.shape[1] for array in arrays}) != 1:
        raise typer.BadParameter("the vectors have different numbers of values; one model makes all of a search")
    return np.concatenate(arrays)


def _read_array(path: Path) -> "Vectors":
    import numpy as np
    from pydantic_core import from_json

    expected = "give a .npy file, or JSON with a list of numbers or of such lists"
    try:
        data = path.read_bytes()
        values = np.load(path, allow_pickle=False) if data.startswith(b"\x93NUMPY") else from_json(data)
        array = np.asarray(values, np.float32)
    except OSError as error:
        raise typer.BadParameter(str(error)) from None
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(f"{path} has no vectors ({error}); {expected}") from None
    if array.ndim not in (1, 2) or not array.size:
        raise typer.BadParameter(f"{path} has an array of shape {array.shape}; {expected}")
    return array


def given(**options: Any) -> dict[str, Any]:
    """The options that are neither None nor empty."""
    return {name: value for name, value in options.items() if value is not None and value != [] and value != {}}
