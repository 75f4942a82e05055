"""The report of a run shows the figures of the checkpoint and the maps of the network, and loads nothing."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundle import Calibration
from tests.training.report.conftest import SECTIONS, Element, copied, parsed, section, shown_lists
from training.checkpoint import load_checkpoint, save_checkpoint
from training.model import Normalise, to_planes
from training.report.figures import ticks
from training.report.page import render


def test_the_page_loads_nothing(run: Path, page: Element) -> None:
    elements = [element for tag in ("img", "a", "link", "script", "svg", "use", "iframe") for element in page.all(tag)]
    assert {element.tag for element in elements} == {"img", "svg"}
    for element in elements:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert element.attributes.get(name, "data:").startswith("data:")
    html = (run / "report.html").read_text(encoding="utf-8")
    assert all(target.startswith("data:") for target in re.findall(r"url\(\s*'?([^')]*)", html))
    assert "@import" not in html
    assert "http" not in re.sub(r'base64,[^"\']*', "", html).replace("http-equiv", "")


def test_the_page_has_all_sections_and_every_picture_has_an_alternative_text(page: Element) -> None:
    assert [element.attributes["id"] for element in page.all("section")] == SECTIONS
    assert all(list(section(page, name).all("h2")) for name in SECTIONS)
    assert all(image.attributes["alt"] for image in page.all("img"))
    assert all(chart.attributes["aria-label"] for chart in page.all("svg"))
    titles = {title.words for name in ("training", "retrieval") for title in section(page, name).all("h3")}
    assert {"Learning rate of new layers", "Part masks: live and overlap", "Validation, per cent", "CMC"} <= titles


def test_figures_are_those_of_the_checkpoint(run: Path, page: Element) -> None:
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


def test_captions_state_the_last_values_of_the_curves(run: Path, page: Element) -> None:
    header, *_, last = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    by_name = dict(zip(header, last, strict=True))
    captions = section(page, "training").text()
    for name in ("loss", "triplet", "lr", "live", "images_per_s"):
        assert f"{name} {float(by_name[name]):.3g}" in captions
    assert f"mAP {float((run / 'evaluations.csv').read_text().splitlines()[-1].split(',')[1]):.3g}" in captions


def test_thresholds_are_those_of_the_checkpoint(run: Path, tmp_path: Path) -> None:
    network, card = load_checkpoint(run)
    calibration = Calibration(data="lobby", thresholds={"0.01": 0.4, "0.001": 0.625}, slope=1.0, intercept=0.0)
    copy = copied(run, tmp_path / "copy")
    save_checkpoint(copy / "model.safetensors", network, card.model_copy(update={"calibration": calibration}))
    retrieval = section(parsed(render(copy, None, None, crops=False)[0]), "retrieval").text()
    assert "FPR 1 %: 0.400" in retrieval
    assert "FPR 0.1 %: 0.625" in retrieval
    assert "calibrated on lobby" in retrieval


def test_without_crops_the_page_has_no_picture(run: Path, page: Element) -> None:
    html, warning, shows_people = render(run, None, None, crops=False)
    plain = parsed(html)
    assert (warning, shows_people) == ("", False)
    assert not list(plain.all("img"))
    assert "data:image" not in html
    assert shown_lists(plain) == shown_lists(page)
    assert len(list(plain.all("svg"))) == len(list(page.all("svg")))


def shares(uri: str) -> np.ndarray:
    """The values of a map, 0 to 1, from its green channel, which rises evenly in viridis."""
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))
    greens = [0x01, 0x28, 0x49, 0x68, 0x82, 0x9E, 0xB7, 0xCE, 0xDE, 0xE7]
    return np.interp(image[..., 1], greens, np.linspace(0, 1, len(greens)))


def test_masks_are_those_of_the_network(run: Path, page: Element, market: Path) -> None:
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


def test_compatibility_maps_are_ordered_by_block_and_part(page: Element) -> None:
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


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0), (3, 3), (-0.5, 0.93), (12.1, 43.2), (0, 2e-5), (0, 123456)])
def test_ticks_are_round_and_enclose_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
