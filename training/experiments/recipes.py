"""Recipes: the committed YAML files of `recipes/`.

A run recipe (`market1501.yaml`) is the configuration of a run. A table recipe (`table1.yaml`) lists the runs of a table
as changes of run recipes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from bundle.manifest import StrictModel
from training.config import RunConfig, load_config, unknown_name
from training.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"


class TableRecipe(StrictModel):
    """The content of a table recipe. Settings are NAME=VALUE, as on the command line."""

    title: str
    recipe: str | None = Field(
        default=None, description="run recipe that each row extends; null: a row extends the recipe of its own name"
    )
    settings: list[str] = Field(default=[], description="settings of every row")
    rows: dict[str, list[str]] = Field(min_length=1, description="name of a row -> its settings")


@dataclass(frozen=True, slots=True)
class Table:
    """A table recipe that was read."""

    name: str
    folder: Path
    content: TableRecipe

    @property
    def rows(self) -> list[str]:
        """The names of the rows, in order."""
        return list(self.content.rows)

    def config(self, row: str, overrides: Sequence[str], data_root: Path) -> RunConfig:
        """The configuration of a row. A row's settings stand above `overrides`, these above the table's settings.

        A relative data.path of a run recipe is inside `data_root`. Raises ConfigError.
        """
        content = self.content
        recipe = self.folder / f"{content.recipe or row}.yaml"
        config = load_config(recipe, [*content.settings, *overrides, *content.rows[row]])
        path = config.data.path
        if not isinstance(path, Path) or any(override.startswith("data.path=") for override in overrides):
            return config
        return config.model_copy(update={"data": config.data.model_copy(update={"path": data_root / path})})


def table_names() -> list[str]:
    """The committed table recipes."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml") if "\nrows:" in file.read_text(encoding="utf-8"))


def read_table(name: str) -> Table:
    """Read a committed table recipe by name, or any by the path of its file. Raises ConfigError."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"table {unknown_name(name, table_names())}")
    try:
        content = TableRecipe.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors())
        raise ConfigError(f"{file} is not a table recipe ({problems}); tables are {', '.join(table_names())}") from None
    return Table(file.stem, file.parent, content)
