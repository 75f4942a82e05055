"""Verification, open-set, camera-by-camera and calibration figures: by hand, and against loops over every pair."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from training.evaluation import Embedded, Labels, blocks, calibrate, full_report, unit
from training.evaluation.blocks import measure
from training.evaluation.calibration import BINS, fit_logistic
from training.evaluation.cameras import Cameras
from training.evaluation.openset import Searches
from training.evaluation.thresholds import LargestValues, operating_points
from training.evaluation.verification import Pairs

QUERIES, ROWS = 120, 400


@dataclass
class World:
    """A table of similarities and a word for each pair."""

    query: Labels
    gallery: Labels
    table: np.ndarray

    def kind(self, q: int, g: int) -> str:
        if self.gallery.person[g] == -1:
            return "junk"
        if self.gallery.person[g] != self.query.person[q]:
            return "negative"
        return "dropped" if self.gallery.camera[g] == self.query.camera[q] else "positive"

    def of_kind(self, kind: str) -> list[float]:
        return [float(self.table[q, g]) for q in range(QUERIES) for g in range(ROWS) if self.kind(q, g) == kind]

    def ranking(self, q: int, rows: list[int]) -> list[int]:
        return sorted(rows, key=lambda g: -self.table[q, g])  # stable: equal ones keep the gallery's order


@pytest.fixture(params=[50, 10**6], ids=["ties everywhere", "no ties"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Persons 1 to 24, of whom the last few are not in the gallery, which has junk and distractors. Small blocks."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 16 * ROWS * 7)  # seven queries at a time, the last block shorter
    rng = np.random.default_rng(0)
    query = Labels(rng.integers(1, 25, QUERIES), rng.integers(1, 4, QUERIES))
    gallery = Labels(rng.integers(-1, 21, ROWS), rng.integers(1, 5, ROWS))
    same = query.person[:, None] == gallery.person
    table = np.tanh(0.3 * rng.standard_normal((QUERIES, ROWS)) + 0.6 * same)
    return World(query, gallery, (np.round(table * request.param) / request.param).astype(np.float32))


def test_verification_agrees_with_a_count_over_all_pairs(world: World) -> None:
    pairs = Pairs(world.query, world.gallery)
    measure(lambda rows: world.table[rows], world.query, world.gallery, pairs)
    found = pairs.result()
    positive, negative = world.of_kind("positive"), world.of_kind("negative")
    assert (found.positives, found.negatives) == (len(positive), len(negative))
    assert [at.rate for at in found.at] == [1e-2, 1e-3]  # 1e-4 of some 40,000 pairs is 4: too few to estimate a rate
    for at in found.at:
        assert sum(value >= at.threshold for value in negative) <= at.rate * len(negative)
        # the lowest such threshold: with the next similarity below it too many would pass
        lower = max(value for value in negative if value < at.threshold)
        assert sum(value >= lower for value in negative) > at.rate * len(negative)
        assert at.found == pytest.approx(100 * sum(v >= at.threshold for v in positive) / len(positive), abs=1e-3)


def test_open_set_rates_agree_with_searches_with_and_without_mates(world: World) -> None:
    searches = Searches()
    measure(lambda rows: world.table[rows], world.query, world.gallery, searches)
    found = searches.result()
    strangers, right, mated = [], [], 0
    for q in range(QUERIES):
        kinds = [world.kind(q, g) for g in range(ROWS)]
        strangers.append(max(float(world.table[q, g]) for g in range(ROWS) if kinds[g] == "negative"))
        if "positive" in kinds:
            mated += 1
            first = world.ranking(q, [g for g in range(ROWS) if kinds[g] in ("positive", "negative")])[0]
            if kinds[first] == "positive":
                right.append(float(world.table[q, first]))
    assert (found.mated, found.non_mated) == (mated, QUERIES)
    assert mated < QUERIES
    (at,) = found.at  # the lower rates would be one search in 120, or none
    limit = sorted(strangers, reverse=True)[int(0.1 * QUERIES)]
    assert (at.rate, sum(value >= at.threshold for value in strangers) <= 12) == (0.1, True)
    assert at.found == pytest.approx(100 * sum(value > limit for value in right) / mated, abs=1e-3)


def test_a_camera_pair_is_ranked_without_the_other_cameras(world: World) -> None:
    cameras = Cameras(world.query, world.gallery)
    measure(lambda rows: world.table[rows], world.query, world.gallery, cameras)
    found = {(pair.query_camera, pair.gallery_camera): pair for pair in cameras.result()}
    expected: dict[tuple[int, int], list[tuple[float, bool]]] = {}
    for q in range(QUERIES):
        for camera in range(1, 5):
            seen = [g for g in range(ROWS) if world.gallery.camera[g] == camera]
            ranked = world.ranking(q, [g for g in seen if world.kind(q, g) in ("positive", "negative")])
            hits = [rank for rank, g in enumerate(ranked, start=1) if world.kind(q, g) == "positive"]
            if hits:
                precision = np.mean([(n + 1) / rank for n, rank in enumerate(hits)])
                expected.setdefault((int(world.query.camera[q]), camera), []).append((precision, hits[0] == 1))
    assert found.keys() == expected.keys()
    assert all(one != other for one, other in found)  # a person's own camera is dropped
    for cameras_of, scores in expected.items():
        pair = found[cameras_of]
        assert pair.queries == len(scores)
        assert pair.mAP == pytest.approx(100 * np.mean([precision for precision, _ in scores]), abs=1e-3)
        assert pair.rank1 == pytest.approx(100 * np.mean([first for _, first in scores]), abs=1e-3)


def test_a_non_mated_search_excludes_all_rows_of_the_person() -> None:
    # 100 queries of person 1 in camera 1: the row of the same camera is the most similar and must not count
    query, gallery = Labels(np.full(100, 1), np.full(100, 1)), Labels(np.array([1, 1, 2]), np.array([1, 2, 2]))
    table = np.tile(np.array([0.99, 0.8, 0.3], np.float32), (100, 1))
    searches = Searches()
    measure(lambda rows: table[rows], query, gallery, searches)
    (at,) = searches.result().at
    assert at.threshold == np.nextafter(np.float32(0.3), np.float32(1))
    assert at.found == 100


def test_a_mate_below_the_threshold_is_not_detected() -> None:
    strangers = np.linspace(0.9, 0.5, 100, dtype=np.float32)  # the tenth may pass, the eleventh may not
    (at,) = operating_points(
        [0.1], strangers, 100, np.array([0.95, strangers[10], strangers[9]], np.float32), attempts=4
    )
    assert at.found == 50


def test_the_largest_values_of_a_stream_are_exact() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 300, 5000).astype(np.float32)
    largest = LargestValues(40)
    for part in np.split(values, [1, 1, 900, 901, 3000]):
        largest.add(part)
    assert largest.seen == 5000
    assert largest.descending().tolist() == sorted(values, reverse=True)[:40]
    assert LargestValues(3).descending().size == 0


def people(seed: int = 0) -> Embedded:
    """Noisy embeddings of 30 people in three cameras; lengths differ, and some gallery rows are junk."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((31, 16))

    def side(count: int, low: int) -> tuple[np.ndarray, Labels]:
        person = rng.integers(low, 31, count)
        rows = centre[person] + 1.2 * rng.standard_normal((count, 16))
        return rows.astype(np.float32), Labels(np.where(person == 0, -1, person), rng.integers(1, 4, count))

    return Embedded(*side(100, 1), *side(300, 0), "noise")


def test_calibration_is_the_logistic_regression_over_all_pairs_with_balanced_classes() -> None:
    data = people()
    found = calibrate(data)
    assert found is not None
    cosine = unit(data.query_QD) @ unit(data.gallery_GD).T
    world = World(data.query, data.gallery, cosine)
    kinds = np.array([[world.kind(q, g) for g in range(300)] for q in range(100)])
    positive, negative = cosine[kinds == "positive"], cosine[kinds == "negative"]
    design = np.stack([np.concatenate([positive, negative]), np.ones(len(positive) + len(negative))], 1).astype(float)
    ones, zeros = np.ones(len(positive)), np.ones(len(negative))
    target = np.concatenate([ones * (len(ones) + 1) / (len(ones) + 2), zeros / (len(zeros) + 2)])  # Platt's
    weight = np.concatenate([ones / len(ones), zeros / len(zeros)])
    slope_intercept = np.zeros(2)
    for _ in range(30):  # Newton's method
        probability = 1 / (1 + np.exp(-design @ slope_intercept))
        curvature = (design * (weight * probability * (1 - probability))[:, None]).T @ design
        slope_intercept -= np.linalg.solve(curvature, design.T @ (weight * (probability - target)))
    slope, intercept = slope_intercept
    assert found.slope == pytest.approx(slope, rel=2e-3)
    assert found.intercept == pytest.approx(intercept, rel=2e-3, abs=2e-3)
    assert slope > 1


def test_perfectly_separated_pairs_have_a_finite_slope() -> None:
    positive, negative = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    positive[3500], negative[2000] = 1000, 50_000
    slope, intercept = fit_logistic(positive, negative)
    assert math.isfinite(slope)
    probability = [1 / (1 + math.exp(-(slope * cosine + intercept))) for cosine in (0.75025, 0.00025)]
    assert probability == pytest.approx([1001 / 1002, 1 / 50_002], rel=1e-3)  # Platt's targets, reached exactly


def test_the_report_contains_the_same_calibration() -> None:
    data = people()
    report = full_report(data)
    assert report.calibration == calibrate(data)
    assert report.calibration is not None
    assert report.calibration.thresholds == {f"{at.rate:g}": at.threshold for at in report.verification.at}
    assert set(report.calibration.thresholds) == {"0.01", "0.001"}
    at = report.verification.at[0]
    junk = data.gallery.person == -1
    fewer = Embedded(
        data.query_QD, data.query, data.gallery_GD * np.where(junk, -3, 5)[:, None].astype(np.float32), data.gallery
    )
    # junk and vector lengths do not count
    assert full_report(fewer).verification.at[0].found == pytest.approx(at.found, abs=0.2)


def test_without_negative_pairs_there_is_no_calibration() -> None:
    rows, alone = np.eye(2, 4, dtype=np.float32), np.array([1, 1])
    assert calibrate(Embedded(rows, Labels(alone, alone), rows, Labels(alone, alone + 1))) is None
