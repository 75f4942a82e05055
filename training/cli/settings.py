"""`pan-train settings`, and the same tables at the end of `pan-train run --help`."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from training.cli.common import AsJson
from training.config.reference import list_presets, list_settings, list_variants


def settings(as_json: AsJson = False) -> None:
    """List every setting of a run with its default and meaning, the presets, and the variants of the network."""
    if as_json:
        listed = {
            "settings": [asdict(setting) for setting in list_settings()],
            "presets": list_presets(),
            "variants": list_variants(),
        }
        print(json.dumps(listed))
    else:
        Console().print(settings_tables())


def settings_tables() -> Group:
    """Settings, presets and variants as three tables."""
    title = "Settings (NAME=VALUE; values in YAML syntax); the preset, paper if none is named, changes defaults"
    settings = _table(title, "name", "default", "meaning")
    for setting in list_settings():
        choices = f" ({' | '.join(setting.choices)})" if setting.choices else ""
        settings.add_row(setting.name, escape(setting.default), escape(setting.meaning + choices))
    presets = _table("Presets (preset=NAME)", "name", "sets")
    for name, overrides in list_presets().items():
        presets.add_row(name, escape(" ".join(overrides)) or "nothing: the defaults above")
    variants = _table("Variants (model.variant=NAME); `pan-train inspect` shows what each costs", "name", "made of")
    for name, description in list_variants().items():
        variants.add_row(name, description)
    return Group(settings, presets, variants)


class CommandWithSettings(TyperCommand):
    """A command whose --help ends with the tables of settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, then the tables."""
        super().format_help(ctx, formatter)
        Console().print(settings_tables())


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, overflow="fold")
    return table
