"""`pan-train settings` and `pan-train run --help`, and the error of the commands without the extra [train]."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from training.cli.app import app
from training.config import PRESETS, RunConfig, load_config
from training.model import VARIANTS

ROOT = Path(__file__).parents[3]


def defaults(values: object, prefix: str = "") -> dict[str, object]:
    """A configuration as dotted names and plain values."""
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    return {name: value for key, inner in values.items() for name, value in defaults(inner, f"{prefix}{key}.").items()}


def meanings(model: type[BaseModel]) -> list[str]:
    fields = list(model.model_fields.values())
    groups = [type(field.default) for field in fields if isinstance(field.default, BaseModel)]
    own = [str(field.description) for field in fields if not isinstance(field.default, BaseModel)]
    return own + [meaning for group in groups for meaning in meanings(group)]


def test_settings_lists_every_setting_preset_and_variant() -> None:
    listed = json.loads(CliRunner().invoke(app, ["settings", "--json"]).stdout)
    assert {each["name"]: yaml.safe_load(each["default"]) for each in listed["settings"]} == defaults(
        RunConfig().model_dump(mode="json")
    )
    assert sorted(each["meaning"] for each in listed["settings"]) == sorted(meanings(RunConfig))
    assert all(each["meaning"] not in ("", "None") for each in listed["settings"])
    assert list(listed["variants"]) == list(VARIANTS)
    assert all(listed["variants"].values())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_the_values_listed_for_it(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads(CliRunner().invoke(app, ["settings", "--json"]).stdout)["presets"]
    expected = load_config(None, [f"preset={preset}", "model.weights=some.pth"])
    monkeypatch.setitem(PRESETS, "paper", {})  # so that no preset stands below the overrides
    by_hand = load_config(None, [*listed[preset], "model.weights=some.pth"]).model_copy(update={"preset": preset})
    assert by_hand == expected


@pytest.mark.parametrize("command", [["run", "--help"], ["settings"]])
def test_help_shows_settings_presets_and_variants(command: list[str]) -> None:
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    for text in ("optim.lr", "learning rate of new layers", "0.1", "data.path='[A,B]'", "short", "pan_c_nl"):
        assert text in shown.output


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("training", "torch", "train"),
        ("training", "yaml", "train"),
        ("export", "torch", "train"),
        ("export", "onnxruntime", "cpu,train"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(command: str, package: str, extra: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; from {command}.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    name = {"training": "pan-train", "export": "pan-export"}[command]
    assert line.startswith(f"error: {name} needs {package}, which is not installed; pip install ")
    assert f"'.[{extra}]'" in line
