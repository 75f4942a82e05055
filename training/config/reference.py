"""The reference of a run's configuration: every setting with default, choices and meaning, the presets, the variants.

`pan-train settings` prints it, and `pan-train run --help` ends with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from training.config.presets import PRESETS
from training.config.settings import RunConfig
from training.model.config import VARIANTS, NetworkConfig


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted name, its default without a preset, and what it means."""

    name: str
    default: str
    choices: tuple[str, ...]  # empty where it takes any value of its type
    meaning: str


def list_settings(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a run, in the order of the configuration."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from list_settings(type(field.default), f"{prefix}{name}.")
        else:
            yield Setting(
                f"{prefix}{name}", format_value(field.default), _choices(field.annotation), field.description or ""
            )


def list_presets() -> dict[str, list[str]]:
    """What each preset sets, as the overrides that would do the same."""
    return {name: list(_overrides(values, "")) for name, values in PRESETS.items()}


def list_variants() -> dict[str, str]:
    """What each variant of the network is made of."""
    return {name: _describe(config) for name, config in VARIANTS.items()}


def format_value(value: object) -> str:
    """A value as it is written on the command line (YAML)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _choices(annotation: Any) -> tuple[str, ...]:
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()


def _overrides(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={format_value(value)}"


FUSIONS = {
    "none": "",
    "pool_x3": "pooled features of block 3",
    "conv_add": "blocks 1 to 3 by convolution, added",
    "conv_concat": "blocks 1 to 3 by convolution, concatenated",
    "pam_add": "part-aware attention, added",
    "pam_concat": "part-aware attention, concatenated",
}


def _describe(config: NetworkConfig) -> str:
    if config.stripes is None:
        parts = f"learned parts at scales {', '.join(map(str, config.scales))}"
    else:
        parts = "global pooling" if config.stripes == 1 else f"{config.stripes} horizontal stripes"
    fusion = FUSIONS[config.fusion]
    if config.fusion.startswith("pam") and config.pam_dims != (256, 256, 256):
        fusion += f", {' / '.join(map(str, config.pam_dims))} channels"
    extras = ("non-local blocks" if config.non_local else "", "BNNeck" if config.bnneck else "")
    return "; ".join(part for part in (parts, fusion, *extras) if part)
