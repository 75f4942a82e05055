"""`pan-reid search` as a user types it, against a real server."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundle import Calibration
from pan_reid import Client, Crop, schemas
from service.core.settings import Settings
from tests.support.bundles import write_bundle
from tests.support.pictures import png
from tests.support.servers import pan_reid, running

CALIBRATION = Calibration(data="three cameras", thresholds={"0.001": 0.9}, slope=20.0, intercept=-12.0)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"), calibration=CALIBRATION)
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"))) as http:
        with Client(str(http.base_url)) as client:
            client.create_gallery("lobby")
            client.enrol(
                "lobby",
                [
                    Crop(
                        png(person, camera),
                        schemas.EntryInfo(
                            person_id=f"p{person}",
                            camera_id=f"c{camera}",
                            captured_at=datetime(2024, 5, person, 10 + camera, tzinfo=UTC),
                            attributes={
                                "coat": ["red", "blue"][person % 2],
                                "bags": camera,
                                "file": "[red]x[/red].jpg",
                            },
                        ),
                    )
                    for person in range(1, 6)
                    for camera in range(1, 4)
                ],
            )
        yield str(http.base_url)


def test_a_search_is_filtered_fused_and_judged(url: str, tmp_path: Path) -> None:
    for shot in (7, 8):
        (tmp_path / f"{shot}.png").write_bytes(png(3, shot))
    pictures = [str(tmp_path / "7.png"), str(tmp_path / "8.png")]
    said = pan_reid(
        "search", *pictures, "--gallery", "lobby", "--url", url, "--json", "--fuse", "best", "--fpr", "0.001",
        "--rerank",
        "--camera", "c1", "--camera", "c2", "--from", "2024-05-02T00:00:00Z", "--until", "2024-05-04T13:00:00+02:00",
        "--attribute", "coat=red", "--attribute", "coat=blue", "--attribute", "bags=1",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    answer = schemas.SearchAnswer.model_validate_json(said.stdout)
    assert answer.hits is not None
    assert {(hit.person_id, hit.camera_id) for hit in answer.hits} == {("p2", "c1"), ("p3", "c1")}
    assert (answer.hits[0].person_id, answer.hits[0].verdict) == ("p3", "match")
    assert all(hit.distance is not None for hit in answer.hits)
    assert answer.fused == 2


def test_the_table_says_the_verdict_and_what_it_was_calibrated_on(url: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(3, 7))
    asked = ("search", str(tmp_path / "x.png"), "--gallery", "lobby", "--url", url)
    said = pan_reid(*asked, "--fpr", "0.001", "--group-by-person", "--top-k", "3")
    assert said.returncode == 0, said.stderr
    assert "match from 0.9000 on: false-positive rate 0.001 a pair, calibrated on three cameras" in said.stdout
    assert "match" in next(line for line in said.stdout.splitlines() if "p3" in line)
    assert said.stdout.count("unknown") == 2
    assert "[red]x[/red].jpg" in said.stdout
    refused = pan_reid(*asked, "--fpr", "0.5")
    assert refused.returncode != 0
    assert "those it states: 0.001" in refused.stderr
