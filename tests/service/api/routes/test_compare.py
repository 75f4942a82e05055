"""POST /v1/compare, against the definition of the model; and its line in the audit log."""

import base64
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from bundle import Calibration, load_crop
from pan_reid import schemas
from service.core.settings import Settings
from service.storage.data_dir import DATABASE
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding, write_bundle
from tests.support.pictures import png
from tests.support.servers import running

SAME, OTHER = [(1, 0), (1, 1), (1, 2)], [(2, 0), (2, 1)]
CALIBRATION = Calibration(data="a hall", thresholds={"0.001": 0.9}, slope=20.0, intercept=-12.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def api(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    bundle = write_bundle(tmp_path_factory.mktemp("calibrated"), calibration=CALIBRATION)
    with running(Settings(bundle=bundle, data=data)) as client:
        yield client


def vectors(*pictures: tuple[int, int]) -> np.ndarray:
    return reference_embedding(np.stack([load_crop(png(*picture), HEIGHT, WIDTH) for picture in pictures]))


def files(**sides: list[tuple[int, int]]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(side, ("x.png", png(*picture))) for side, pictures in sides.items() for picture in pictures]


def test_compare_gives_the_similarity_of_the_means_and_the_best_pair(api: httpx.Client) -> None:
    answer = api.post("/v1/compare", files=files(a=SAME, b=[*OTHER, (1, 5)]), data={"false_positive_rate": "0.001"})
    found = schemas.Comparison.model_validate_json(answer.content)
    a, b = vectors(*SAME), vectors(*OTHER, (1, 5))
    mean_a, mean_b = a.mean(0), b.mean(0)
    cosine = mean_a @ mean_b / np.linalg.norm(mean_a) / np.linalg.norm(mean_b)
    assert found.similarity == pytest.approx(cosine, abs=1e-5)
    assert (found.best.a, found.best.b) == np.unravel_index((a @ b.T).argmax(), (3, 3))
    assert found.best.b == 2
    assert found.best.similarity == pytest.approx((a @ b.T).max(), abs=1e-5)
    assert found.probability == pytest.approx(1 / (1 + math.exp(-(20 * cosine - 12))), abs=1e-4)
    assert found.verdict == ("match" if cosine >= 0.9 else "unknown")
    assert found.decision == schemas.Decision(threshold=0.9, false_positive_rate=0.001, calibrated_on="a hall")


def test_compare_gives_a_verdict_by_a_threshold(api: httpx.Client) -> None:
    def ask(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> str | None:
        sides = {side: [base64.b64encode(png(*one)).decode() for one in pictures] for side, pictures in
                 (("a", a), ("b", b))}  # fmt: skip
        answer = api.post("/v1/compare", json={**sides, "threshold": 0.9})
        return schemas.Comparison.model_validate_json(answer.content).verdict

    assert ask(SAME[:1], SAME[1:]) == "match"
    assert ask(SAME, OTHER) == "unknown"


def test_an_invalid_comparison_is_refused_with_its_reason(api: httpx.Client) -> None:
    missing = api.post("/v1/compare", files=files(a=SAME))
    assert (missing.status_code, "`b`" in missing.json()["detail"]) == (422, True)
    stranger = api.post("/v1/compare", files=files(a=SAME, b=OTHER, images=SAME))
    assert (stranger.status_code, "images" in stranger.json()["detail"]) == (422, True)
    broken = api.post("/v1/compare", files=[*files(a=SAME), ("b", ("x", png(1))), ("b", ("x", b"no picture"))])
    assert [error["at"] for error in broken.json()["errors"]] == ["b.1"]
    raw = api.post("/v1/compare", content=png(1), headers={"content-type": "image/png"})
    assert raw.status_code == 422


def test_compare_stores_only_a_line_in_the_audit_log(api: httpx.Client, data: Path) -> None:
    def audit() -> list[tuple[str, int]]:
        with sqlite3.connect(f"file:{data / DATABASE}?mode=ro", uri=True) as db:
            return db.execute("SELECT action, count FROM audit").fetchall()

    before = audit()
    assert api.post("/v1/compare", files=files(a=SAME, b=OTHER)).status_code == 200
    assert audit() == [*before, ("compare", 5)]
    with sqlite3.connect(f"file:{data / DATABASE}?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM vectors").fetchone() == (0,)
    # A refused comparison is in the audit log as well.
    assert api.post("/v1/compare", files=[*files(a=SAME), ("b", ("x", b"no picture"))]).status_code == 422
    assert audit() == [*before, ("compare", 5), ("compare", len(SAME) + 1)]
