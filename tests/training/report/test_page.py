"""`pan-train report`: one page that holds all it shows, and shows what the network, the labels and the card say."""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from bundle import Calibration
from tests.training.cli.test_run import pan_train
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import load_config
from training.data import read_data
from training.embed import embed_crops, torch_embedder
from training.errors import ConfigError, DataError
from training.experiments.ablation import run_table
from training.experiments.recipes import read_table
from training.model import Normalise, to_planes
from training.report.figures import ticks
from training.report.measure import choose
from training.report.page import render
from training.trainer import Trainer

SMALL = [
    "preset=short", "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1",
    "sampler.identities=4", "sampler.crops=2", "seed=5",
]  # fmt: skip
SECTIONS = ["run", "training", "retrieval", "lists", "masks", "compatibility", "variants"]


@dataclass
class Element:
    """A tag with what is in it."""

    tag: str
    attributes: dict[str, str]
    inside: list["Element"] = field(default_factory=list)
    words: str = ""

    def all(self, tag: str, **attributes: str) -> Iterator["Element"]:
        for element in self.inside:
            wanted = (value in element.attributes.get(name, "").split() for name, value in attributes.items())
            if element.tag == tag and all(wanted):
                yield element
            yield from element.all(tag, **attributes)

    def text(self) -> str:
        return " ".join([self.words, *(element.text() for element in self.inside)])


class Tree(HTMLParser):
    """HTML as a tree; raises where a tag is not closed by its own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open = [Element("", {})]
        self.feed(html)
        self.root = self.open[0]
        assert len(self.open) == 1

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in ("meta", "img", "br"):
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].words += data


def parsed(html: str) -> Element:
    return Tree(html).root


def section(page: Element, name: str) -> Element:
    (found,) = page.all("section", id=name)
    return found


def train(out: Path, data: Path, *overrides: str) -> Path:
    before = torch.get_num_threads()
    Trainer(load_config(None, [*SMALL, f"data.path={data}", *overrides]), out, Console(quiet=True)).run()
    torch.set_num_threads(before)
    return out


def copied(run: Path, to: Path) -> Path:
    to.mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv", "evaluations.csv", "model.safetensors"):
        (to / name).write_bytes((run / name).read_bytes())
    return to


@pytest.fixture(scope="module")
def run(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of PAN."""
    return train(tmp_path_factory.mktemp("runs") / "pan", market, "optim.iterations=20", "evaluate_every=10")


@pytest.fixture(scope="module")
def page(run: Path) -> Element:
    """Its report, by the real command."""
    done = pan_train("report", run)
    assert done.stdout == f"wrote {run / 'report.html'}, which shows crops of people\n"
    return parsed((run / "report.html").read_text(encoding="utf-8"))


def test_nothing_in_the_page_leaves_the_page(run: Path, page: Element) -> None:
    elements = [element for tag in ("img", "a", "link", "script", "svg", "use", "iframe") for element in page.all(tag)]
    assert {element.tag for element in elements} == {"img", "svg"}
    for element in elements:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert element.attributes.get(name, "data:").startswith("data:")
    html = (run / "report.html").read_text(encoding="utf-8")
    assert all(target.startswith("data:") for target in re.findall(r"url\(\s*'?([^')]*)", html))
    assert "@import" not in html
    assert "http" not in re.sub(r'base64,[^"\']*', "", html).replace("http-equiv", "")


def test_every_section_is_there_and_every_picture_has_words(page: Element) -> None:
    assert [element.attributes["id"] for element in page.all("section")] == SECTIONS
    assert all(list(section(page, name).all("h2")) for name in SECTIONS)
    assert all(image.attributes["alt"] for image in page.all("img"))
    assert all(chart.attributes["aria-label"] for chart in page.all("svg"))
    titles = {title.words for name in ("training", "retrieval") for title in section(page, name).all("h3")}
    assert {"Learning rate of new layers", "Part masks: live and overlap", "Validation, per cent", "CMC"} <= titles


def test_figures_are_the_cards(run: Path, page: Element) -> None:
    _, card = load_checkpoint(run)
    found = card.evaluation
    assert found is not None
    (row,) = next(section(page, "run").all("tbody")).all("tr")
    cells = [cell.words for cell in row.all("td")]
    figures = [*found.cmc.values(), found.mAP, found.mAP_official, found.mINP]
    assert cells == ["by the run", found.data, "6", "7", *(f"{figure:.2f}" for figure in figures)]
    facts = section(page, "run").text()
    assert "pan_c" in facts
    assert str(card.provenance.commit) in facts


def test_curves_end_where_the_run_ended(run: Path, page: Element) -> None:
    header, *_, last = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    by_name = dict(zip(header, last, strict=True))
    captions = section(page, "training").text()
    for name in ("loss", "triplet", "lr", "live", "images_per_s"):
        assert f"{name} {float(by_name[name]):.3g}" in captions
    assert f"mAP {float((run / 'evaluations.csv').read_text().splitlines()[-1].split(',')[1]):.3g}" in captions


def brute_force(run: Path, market: Path) -> dict[str, tuple[float, list[tuple[bool, float, str]]]]:
    """Query file -> AP in per cent and the ranking, from embeddings and file names alone, by the official rules."""
    network, card = load_checkpoint(run)
    data = read_data(market)
    embed = torch_embedder(network, card.input)
    vectors = {
        crop.path.name: vector
        for crops in (data.query, data.gallery)
        for crop, vector in zip(crops, embed_crops(embed, crops, card.input), strict=True)
    }
    ranked = {}
    for query in sorted(path.name for path in (market / "query").iterdir()):
        hits = []
        for other in sorted(path.name for path in (market / "bounding_box_test").iterdir()):
            junk, same = other.startswith("-1"), other[:4] == query[:4]
            if not junk and not (same and other[5:7] == query[5:7]):
                hits.append((same, float(vectors[query] @ vectors[other]), other))
        hits.sort(key=lambda hit: -hit[1])
        places = [place for place, hit in enumerate(hits, start=1) if hit[0]]
        precision = 100 * sum((index + 1) / place for index, place in enumerate(places)) / len(places)
        ranked[query] = (precision, hits)
    return ranked


def shown_lists(page: Element) -> dict[str, list[tuple[str, str]]]:
    """Query file -> class and title of each hit."""
    found = {}
    for ranking in section(page, "lists").all("div", **{"class": "ranking"}):
        name = next(ranking.all("p")).words.partition(":")[0]
        found[name] = [(hit.attributes["class"], hit.attributes["title"]) for hit in ranking.all("li")]
    return found


def test_frames_signs_and_order_agree_with_labels(run: Path, page: Element, market: Path) -> None:
    expected, shown = brute_force(run, market), shown_lists(page)
    assert shown.keys() == expected.keys()  # six queries: all of them are among the worst and the best
    for query, (_, hits) in expected.items():
        for place, ((right, similarity, name), (kind, title)) in enumerate(
            zip(hits, shown[query], strict=True), start=1
        ):
            assert kind == ("right" if right else "wrong")
            verdict = "the same person" if right else "somebody else"
            assert title.startswith(f"rank {place}, {verdict}, similarity ")
            assert float(re.findall(r"similarity (-?[\d.]+)", title)[0]) == pytest.approx(similarity, abs=0.0051)
            assert title.endswith(f"camera {int(name[6])}: {name}")
    signs = [sign.words for hit in section(page, "lists").all("li") for sign in hit.all("span", **{"class": "sign"})]
    kinds = [kind for hits in shown.values() for kind, _ in hits]
    assert signs == [{"right": "✓", "wrong": "✗"}[kind] for kind in kinds]


def test_queries_stand_from_the_worst_to_the_best(run: Path, page: Element, market: Path) -> None:
    precisions = [brute_force(run, market)[query][0] for query in shown_lists(page)]
    assert precisions == pytest.approx(sorted(precisions))


def shares(uri: str) -> np.ndarray:
    """What a map shows, 0 to 1: green rises evenly through viridis."""
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))
    greens = [0x01, 0x28, 0x49, 0x68, 0x82, 0x9E, 0xB7, 0xCE, 0xDE, 0xE7]
    return np.interp(image[..., 1], greens, np.linspace(0, 1, len(greens)))


def test_masks_drawn_are_the_networks(run: Path, page: Element, market: Path) -> None:
    network, card = load_checkpoint(run)
    strips = list(section(page, "masks").all("div", **{"class": "strip"}))
    assert len(strips) == 4
    for strip in strips:
        crop, *masks = strip.all("img")
        name = crop.attributes["alt"].removeprefix("crop ")
        pixels = np.array(Image.open(market / "query" / name).convert("RGB"))[None]  # 64 x 32 already
        with torch.inference_mode():
            mask_6N = network(Normalise(card.input)(to_planes(torch.from_numpy(pixels)))).mask_BIN[0].numpy()
        assert len(masks) == 6
        for mask_N, image in zip(mask_6N, masks, strict=True):
            drawn_hw = shares(image.attributes["src"])
            assert drawn_hw.shape == (4, 2)
            np.testing.assert_allclose(drawn_hw.ravel(), mask_N / max(mask_N.max(), 1e-9), atol=0.02)
            assert f"{np.mean(mask_N > 0):.0%}".replace("%", " %") in image.attributes["alt"]


def test_compatibility_maps_are_laid_out_by_block_and_part(page: Element) -> None:
    words = [image.attributes["alt"] for image in section(page, "compatibility").all("img")]
    parts = ["1.1", "2.1", "2.2", "3.1", "3.2", "3.3"]
    figure_5 = [f"part 1.1 in block {block}" for block in (1, 2, 3)]
    figure_6 = [f"part {part} in block {block}" for block in (3, 2, 1) for part in parts]
    drawn = [word for word in words if not word.startswith("crop ")]
    assert drawn[:12] == figure_5 * 4
    assert sorted(drawn[12:]) == sorted(figure_6 * 4)
    maps = [
        shares(image.attributes["src"])
        for image in section(page, "compatibility").all("img")
        if "part" in image.attributes["alt"]
    ]
    assert [shown.shape for shown in maps[:3]] == [(16, 8), (8, 4), (4, 2)]
    assert all((shown.min(), shown.max()) == (0, 1) for shown in maps)


def test_without_crops_there_is_no_picture(run: Path, page: Element) -> None:
    html, lacking, shows_people = render(run, None, None, crops=False)
    plain = parsed(html)
    assert (lacking, shows_people) == ("", False)
    assert not list(plain.all("img"))
    assert "data:image" not in html
    assert shown_lists(plain) == shown_lists(page)
    assert len(list(plain.all("svg"))) == len(list(page.all("svg")))


def test_thresholds_are_the_cards(run: Path, tmp_path: Path) -> None:
    network, card = load_checkpoint(run)
    calibration = Calibration(data="lobby", thresholds={"0.01": 0.4, "0.001": 0.625}, slope=1.0, intercept=0.0)
    copy = copied(run, tmp_path / "copy")
    save_checkpoint(copy / "model.safetensors", network, card.model_copy(update={"calibration": calibration}))
    retrieval = section(parsed(render(copy, None, None, crops=False)[0]), "retrieval").text()
    assert "FPR 1 %: 0.400" in retrieval
    assert "FPR 0.1 %: 0.625" in retrieval
    assert "calibrated on lobby" in retrieval


def test_a_table_of_variants_is_found_around_the_run(market: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, f"data.path={market}", "optim.iterations=1"]
    table, console = read_table("table1"), Console(quiet=True)
    assert run_table(table, ["global_pool"], range(1), overrides, tmp_path, tmp_path / "t1", [], console) == []
    folder = tmp_path / "t1" / "global_pool-seed0"
    found = parsed(render(folder, None, None, crops=True)[0])
    ours, paper = section(found, "variants").all("tbody")
    _, card = load_checkpoint(folder)
    assert card.evaluation is not None
    figures = [f"{card.evaluation.cmc[1]:.2f}", f"{card.evaluation.mAP:.2f}"]
    assert [cell.words for cell in ours.all("td")] == ["global_pool", market.name, "1", *figures, ""]
    assert [cell.words for cell in paper.all("td")] == ["table1", "global_pool", "86.0", "68.9"]
    assert "learns no parts: it pools the whole crop" in section(found, "masks").text()
    assert "no part-aware attention" in section(found, "compatibility").text()


def test_a_run_whose_data_are_gone_shows_what_it_wrote(run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path / "a<b>&c")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(re.sub(r"path: .*", f"path: {tmp_path}/gone", config))
    with (copy / "metrics.csv").open("a") as stream:
        stream.write("30,1.5,")  # a run that was killed while it wrote
    (tmp_path / "table.csv").write_text("somebody's own\n")
    html, lacking, _ = render(copy, None, None, crops=True)
    found = parsed(html)
    assert "gone" in lacking
    assert "--data" in lacking
    assert [heading.words for heading in found.all("h1")] == ["a<b>&c"]
    assert len(list(section(found, "training").all("svg"))) == 10
    assert "stands alone" in section(found, "variants").text()
    assert not list(found.all("img"))
    assert all(lacking in " ".join(section(found, name).text().split()) for name in ("retrieval", "lists", "masks"))


def test_without_a_test_split_the_parts_of_training_crops_are_shown(market: Path, run: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.name[:4]},{path.name[5:7]},train" for path in (market / "bounding_box_train").iterdir()]
    (tmp_path / "only.csv").write_text("\n".join(["path,person,camera,split", *rows]))
    folder = train(tmp_path / "run", tmp_path / "only.csv", "optim.iterations=1", "model.variant=baseline")
    html, lacking, shows_people = render(folder, None, None, crops=True)
    assert "only has no query or no gallery" in lacking
    assert shows_people
    found = parsed(html)
    assert len(list(section(found, "masks").all("img"))) == 4 * 7
    assert "baseline has no part-aware attention" in section(found, "compatibility").text()
    assert len(list(section(found, "compatibility").all("img"))) == 4 * (1 + 3)
    alone, compared = (
        section(parsed(render(run, None, None, crops=True, without_pam=other)[0]), "compatibility")
        for other in (None, folder)
    )
    assert len(list(compared.all("img"))) == len(list(alone.all("img"))) + 4 * (1 + 3)
    assert f"the run {folder.name}" in compared.text()
    with pytest.raises(ConfigError, match="is a run of pan_c; --without-pam takes one"):
        render(run, None, None, crops=True, without_pam=run)
    with pytest.raises(DataError, match="name a data set with a test split"):
        render(folder, tmp_path / "only.csv", None, crops=True)
    again, lacking, _ = render(folder, market, None, crops=False)
    assert lacking == ""
    assert "for this page" in section(parsed(again), "run").text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/none"], "is not the folder of a run"),
        (["{run}", "--data", "{tmp}/none"], "no data set at"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], words: str, run: Path, tmp_path: Path) -> None:
    done = pan_train(
        "report", *(text.format(tmp=tmp_path, run=run) for text in arguments), "--out", tmp_path / "r.html", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.html").exists()


def test_a_table_that_is_none_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished run of `pan-train ablate`"):
        render(run, None, tmp_path, crops=False)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 9, 10, 100])
def test_queries_are_chosen_from_both_ends_and_the_middle(count: int) -> None:
    precisions = [(7 * place) % count for place in range(count)]  # a permutation but for multiples of 7
    chosen = choose(precisions)
    places = [place for group in chosen.values() for place in group]
    assert len(places) == len(set(places)) == min(count, 9)
    values = [precisions[place] for place in places]
    assert values == sorted(values)
    assert values[0] == min(precisions)
    assert values[-1] == max(precisions) or count <= 3


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0), (3, 3), (-0.5, 0.93), (12.1, 43.2), (0, 2e-5), (0, 123456)])
def test_ticks_are_round_and_enclose(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
