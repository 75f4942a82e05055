"""A small run, its report as a tree of HTML elements."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.training.cli.test_run import pan_train
from training.config import load_config
from training.trainer import Trainer

SMALL = [
    "preset=short", "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1",
    "sampler.identities=4", "sampler.crops=2", "seed=5",
]  # fmt: skip


SECTIONS = ["run", "training", "retrieval", "lists", "masks", "compatibility", "variants"]


@dataclass
class Element:
    """A tag with its attributes, children and text."""

    tag: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    words: str = ""

    def all(self, tag: str, **attributes: str) -> Iterator["Element"]:
        """All descendants of a tag whose attributes contain the given words."""
        for element in self.children:
            wanted = (value in element.attributes.get(name, "").split() for name, value in attributes.items())
            if element.tag == tag and all(wanted):
                yield element
            yield from element.all(tag, **attributes)

    def text(self) -> str:
        """The text of the element and its descendants."""
        return " ".join([self.words, *(element.text() for element in self.children)])


class Tree(HTMLParser):
    """HTML as a tree. Raises AssertionError if a tag is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open = [Element("", {})]
        self.feed(html)
        self.root = self.open[0]
        assert len(self.open) == 1

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in ("meta", "img", "br"):
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].words += data


def parsed(html: str) -> Element:
    """The root of a page."""
    return Tree(html).root


def section(page: Element, name: str) -> Element:
    """The section of a page with an id."""
    (found,) = page.all("section", id=name)
    return found


def shown_lists(page: Element) -> dict[str, list[tuple[str, str]]]:
    """The ranked lists of a page: query file -> class and title of each hit."""
    found = {}
    for ranking in section(page, "lists").all("div", **{"class": "ranking"}):
        name = next(ranking.all("p")).words.partition(":")[0]
        found[name] = [(hit.attributes["class"], hit.attributes["title"]) for hit in ranking.all("li")]
    return found


def train(out: Path, data: Path, *overrides: str) -> Path:
    """Train a small network and return its folder."""
    before = torch.get_num_threads()
    Trainer(load_config(None, [*SMALL, f"data.path={data}", *overrides]), out, Console(quiet=True)).run()
    torch.set_num_threads(before)
    return out


def copied(run: Path, to: Path) -> Path:
    """Copy the files of a run that the report reads."""
    to.mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv", "evaluations.csv", "model.safetensors"):
        (to / name).write_bytes((run / name).read_bytes())
    return to


@pytest.fixture(scope="package")
def run(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of PAN."""
    return train(tmp_path_factory.mktemp("runs") / "pan", market, "optim.iterations=20", "evaluate_every=10")


@pytest.fixture(scope="package")
def page(run: Path) -> Element:
    """The report of `run`, written by the command."""
    done = pan_train("report", run)
    assert done.stdout == f"wrote {run / 'report.html'}, which shows crops of people\n"
    return parsed((run / "report.html").read_text(encoding="utf-8"))
