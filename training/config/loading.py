"""Reads a run configuration: the preset, then a YAML file, then `key=value` overrides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from training.config.names import unknown_name, unknown_setting
from training.config.presets import PRESETS
from training.config.reference import list_settings
from training.config.settings import RunConfig
from training.errors import ConfigError


def load_config(file: Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Merge the preset, the YAML file and `dotted.key=value` overrides (values in YAML syntax), in this order.

    Raises ConfigError; for an unknown key the message names the setting that was probably meant.
    """
    given = _standard(_read_yaml(file)) if file else {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"{override!r} is not of the form key=value, such as optim.lr=0.05")
        given = _merge(given, _standard(_nested(key.split("."), _parse(text, override))))
    _check_names(given, RunConfig, "")
    preset = given.get("preset", "paper")
    if preset not in PRESETS:
        raise ConfigError(f"preset: {unknown_name(str(preset), list(PRESETS))}")
    try:
        config = RunConfig.model_validate(_merge(PRESETS[preset], given))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, issue['loc']))}: {issue['msg'].removeprefix('Value error, ')}"
            for issue in error.errors()
        )
        raise ConfigError(problems) from None
    config.model.network()
    _check_combinations(config)
    return config


def save_config(config: RunConfig, path: Path) -> None:
    """Write a configuration that `load_config` reads back as the same."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _check_combinations(config: RunConfig) -> None:
    if config.early_stop and not config.evaluate_every:
        raise ConfigError("early_stop counts evaluations; set evaluate_every too")
    if config.preset == "finetune" and config.model.weights is None:
        raise ConfigError("preset=finetune continues from weights, and model.weights is null; set it to a run")
    if config.optim.freeze_backbone and config.model.weights is None:
        raise ConfigError("optim.freeze_backbone keeps pre-trained layers; set model.weights too")
    if config.model.mask_shift and not config.model.mask_affine:
        raise ConfigError("model.mask_shift is the shift of a learned batch norm; set model.mask_affine=true too")
    path = config.data.path
    if isinstance(path, Path) and "," in str(path) and not path.exists():
        raise ConfigError(f"data.path: {path} does not exist; give several data sets as a list: data.path='[{path}]'")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {file}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold key: value pairs")
    return content


def _parse(text: str, override: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"the value of {override!r} is not valid YAML") from None
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            pass
    return value


def _standard(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, with model.init by its other name."""
    model = given.get("model")
    if not isinstance(model, Mapping) or "init" not in model:
        return dict(given)
    return {**given, "model": {"weights" if key == "init" else key: value for key, value in model.items()}}


def _first_keys(value: Any) -> list[str]:
    """The keys on the way to the first leaf of nested mappings."""
    if not isinstance(value, Mapping) or not value:
        return []
    key, inner = next(iter(value.items()))
    return [str(key), *_first_keys(inner)]


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _check_names(given: Mapping[str, Any], model: type[BaseModel], prefix: str) -> None:
    for key, value in given.items():
        if key not in model.model_fields:
            name = ".".join([f"{prefix}{key}", *_first_keys(value)])
            settings = [setting.name for setting in list_settings()]
            raise ConfigError(unknown_setting(name, list(model.model_fields), settings))
        inner = model.model_fields[key].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{prefix}{key} is a group; set one of its keys, such as {prefix}{key}."
                    f"{next(iter(inner.model_fields))}"
                )
            _check_names(value, inner, f"{prefix}{key}.")
