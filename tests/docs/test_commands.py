"""Commands and options in the documentation exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.hooks import application, console_scripts

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = console_scripts()
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}|\t).*\n|^\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(rf"(?<![\w/-])({'|'.join(SCRIPTS)}) ([^|&>;]*)")


def code(text: str) -> Iterator[str]:
    """Inline code, and the lines of code blocks with continued lines joined."""
    blocks = [*FENCE.findall(text), *INDENTED.findall(text)]
    for block in blocks:
        yield from block.replace("\\\n", " ").splitlines()
    yield from INLINE.findall(FENCE.sub("", text))


def unknown(script: str, arguments: str) -> str | None:
    """The first subcommand or option that does not exist."""
    command, options = application(SCRIPTS[script]), []
    for word in shlex.split(arguments, comments=True):
        if word.startswith("--"):
            options.append(word.split("=")[0])
        elif word.isidentifier() or word == "re-embed":
            if not options and (found := getattr(command, "commands", {}).get(word)):
                command = found
            elif getattr(command, "commands", None):
                return f"{script} {word}"
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    return next((f"{script} {command.name} {name}" for name in options if name not in known), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist(page: Path) -> None:
    lines = [line for line in code(page.read_text(encoding="utf-8")) if "--entrypoint" not in line]
    calls = [match.groups() for line in lines for match in COMMAND.finditer(line)]
    wrong = {problem for script, arguments in calls if (problem := unknown(script, arguments))}
    assert wrong == set()
