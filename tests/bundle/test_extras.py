"""What an error says about installing fits README and pyproject.toml."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from bundle import Extra, pip_install

ROOT = Path(__file__).resolve().parents[2]


def test_every_extra_for_users_is_known() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(get_args(Extra)) == declared.keys() - {"dev", "docs"}


def test_the_command_is_the_one_of_readme() -> None:
    readme = re.findall(r"`(pip install \./client '[^']*')`", (ROOT / "README.md").read_text())
    assert readme
    for command in readme:
        extras = command.removeprefix("pip install ./client '.[").removesuffix("]'").split(",")
        assert pip_install(*extras).startswith(f"{command} ")
    assert pip_install("rtx", options="--force-reinstall").startswith(
        "pip install --force-reinstall ./client '.[rtx]' "
    )


def test_an_extra_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such extra: cuda"):
        pip_install("cuda")  # type: ignore[arg-type]


def test_no_other_text_names_the_distribution_in_place_of_the_source() -> None:
    """`pip install pan-reid` would ask a package index, where the distribution is not."""
    sources = [
        path for folder in ("bundle", "training", "export", "service", "demo") for path in (ROOT / folder).rglob("*.py")
    ]
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    naming = [str(path.relative_to(ROOT)) for path in (*sources, *documents) if "pan-reid[" in path.read_text()]
    assert naming == []
    spelling = [path for path in sources if "pip install" in path.read_text() and path.name != "extras.py"]
    assert spelling == []
