"""The ranked lists of the report, compared with a brute-force ranking by file names."""

import re
from pathlib import Path

import pytest

from tests.training.report.conftest import Element, section, shown_lists
from training.checkpoint import load_checkpoint
from training.data import read_data
from training.embed import embed_crops, torch_embedder
from training.report.measure import choose_queries


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


def test_ranked_lists_agree_with_labels_and_brute_force(run: Path, page: Element, market: Path) -> None:
    expected, shown = brute_force(run, market), shown_lists(page)
    assert shown.keys() == expected.keys()  # six queries: all of them are among the worst and the best
    for query, (_, hits) in expected.items():
        for place, ((right, similarity, name), (kind, title)) in enumerate(
            zip(hits, shown[query], strict=True), start=1
        ):
            assert kind == ("right" if right else "wrong")
            verdict = "the same person" if right else "another person"
            assert title.startswith(f"rank {place}, {verdict}, similarity ")
            assert float(re.findall(r"similarity (-?[\d.]+)", title)[0]) == pytest.approx(similarity, abs=0.0051)
            assert title.endswith(f"camera {int(name[6])}: {name}")
    signs = [sign.words for hit in section(page, "lists").all("li") for sign in hit.all("span", **{"class": "sign"})]
    kinds = [kind for hits in shown.values() for kind, _ in hits]
    assert signs == [{"right": "✓", "wrong": "✗"}[kind] for kind in kinds]


def test_queries_are_ordered_from_worst_to_best(run: Path, page: Element, market: Path) -> None:
    precisions = [brute_force(run, market)[query][0] for query in shown_lists(page)]
    assert precisions == pytest.approx(sorted(precisions))


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 9, 10, 100])
def test_worst_median_and_best_queries_are_chosen_once(count: int) -> None:
    precisions = [(7 * place) % count for place in range(count)]  # a permutation unless count is a multiple of 7
    chosen = choose_queries(precisions)
    places = [place for group in chosen.values() for place in group]
    assert len(places) == len(set(places)) == min(count, 9)
    values = [precisions[place] for place in places]
    assert values == sorted(values)
    assert values[0] == min(precisions)
    assert values[-1] == max(precisions) or count <= 3
