"""Verdicts and probabilities by the calibration of the bundle, and verdicts by a given threshold."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import Calibration
from pan_reid import schemas
from service.core.settings import Settings
from tests.support.bundles import DIM, write_bundle
from tests.support.servers import running

CALIBRATION = Calibration(
    data="three cameras in a hall", thresholds={"0.01": 0.4, "0.001": 0.7, "0.0001": 0.9}, slope=12.5, intercept=-6.0
)
QUERY = np.eye(DIM)[0]
COSINES = [0.95, 0.75, 0.5, 0.1, -0.6]


def turned(cosine: float) -> list[float]:
    """A unit vector with this cosine to the query."""
    return [float(x) for x in cosine * QUERY + math.sqrt(1 - cosine**2) * np.eye(DIM)[1]]


def fill(client: httpx.Client) -> None:
    assert client.post("/v1/galleries", json={"name": "hall"}).status_code == 201
    entries = [{"vector": turned(cosine), "person_id": f"p{n // 2}"} for n, cosine in enumerate(COSINES)]
    assert client.post("/v1/galleries/hall/entries", json={"entries": entries}).status_code == 201


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    bundle = write_bundle(tmp_path_factory.mktemp("calibrated"), calibration=CALIBRATION)
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"))) as client:
        fill(client)
        yield client


def ask(client: httpx.Client, **options: Any) -> httpx.Response:
    return client.post("/v1/galleries/hall/search", json={"vector": QUERY.tolist(), **options})


@pytest.mark.parametrize(("rate", "matches"), [(0.01, 3), (0.001, 2), (1e-4, 1)])
def test_a_false_positive_rate_gives_a_verdict_by_its_threshold(hall: httpx.Client, rate: float, matches: int) -> None:
    found = schemas.SearchAnswer.model_validate_json(ask(hall, false_positive_rate=rate).content)
    assert found.hits is not None
    assert [hit.verdict for hit in found.hits] == ["match"] * matches + ["unknown"] * (5 - matches)
    truth = [1 / (1 + math.exp(-(12.5 * cosine - 6.0))) for cosine in COSINES]
    assert [hit.probability for hit in found.hits] == pytest.approx(truth, abs=1e-6)
    assert found.decision is not None
    assert found.decision.threshold == CALIBRATION.thresholds[f"{rate:g}"]
    assert found.decision.false_positive_rate == rate
    assert found.decision.calibrated_on == "three cameras in a hall"


def test_the_verdict_of_a_person_uses_its_best_entry(hall: httpx.Client) -> None:
    answer = ask(hall, false_positive_rate=0.01, group_by="person").json()
    assert [(one["person_id"], one["verdict"]) for one in answer["persons"]] == [
        ("p0", "match"), ("p1", "match"), ("p2", "unknown")
    ]  # fmt: skip
    assert [hit["verdict"] for hit in answer["persons"][1]["hits"]] == ["match", "unknown"]


def test_without_a_rate_there_are_probabilities_and_no_verdict(hall: httpx.Client) -> None:
    answer = ask(hall).json()
    assert "decision" not in answer
    assert all("verdict" not in hit and 0 < hit["probability"] < 1 for hit in answer["hits"])


def test_an_unknown_rate_is_refused_and_the_known_rates_are_listed(hall: httpx.Client) -> None:
    answer = ask(hall, false_positive_rate=0.5)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert "0.0001, 0.001, 0.01" in answer.json()["detail"]
    both = ask(hall, false_positive_rate=0.01, threshold=0.5)
    assert (both.status_code, "not both" in both.json()["detail"]) == (422, True)


def test_the_model_includes_its_calibration(hall: httpx.Client) -> None:
    assert hall.get("/v1/model").json()["calibration"] == CALIBRATION.model_dump(mode="json")


def test_without_calibration_a_rate_is_refused_and_a_threshold_is_accepted(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path)) as client:
        fill(client)
        refused = ask(client, false_positive_rate=0.01)
        assert (refused.status_code, refused.json()["code"]) == (409, "not-calibrated")
        assert "pan-train evaluate --full" in refused.json()["detail"]
        answer = ask(client, threshold=0.6).json()
        assert [hit["verdict"] for hit in answer["hits"]] == ["match"] * 2 + ["unknown"] * 3
        assert answer["decision"] == {"threshold": 0.6}
        assert not any("probability" in hit for hit in answer["hits"])
        assert client.get("/v1/model").json()["calibration"] is None
