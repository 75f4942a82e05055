"""`pan-reid search` in a subprocess, against a real server."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from bundle import Calibration
from pan_reid import Client, Crop, schemas
from pan_reid.cli.main import app
from service.api.app import openapi_document
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


def test_a_search_applies_filters_fusion_and_a_threshold(url: str, tmp_path: Path) -> None:
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


def test_the_table_shows_the_verdict_and_the_data_of_the_calibration(url: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(3, 7))
    asked = ("search", str(tmp_path / "x.png"), "--gallery", "lobby", "--url", url)
    said = pan_reid(*asked, "--fpr", "0.001", "--group-by-person", "--top-k", "3")
    assert said.returncode == 0, said.stderr
    assert "match at 0.9000 or more: false-positive rate 0.001 per pair, calibrated on three cameras" in said.stdout
    assert "match" in next(line for line in said.stdout.splitlines() if "p3" in line)
    assert said.stdout.count("unknown") == 2
    assert "[red]x[/red].jpg" in said.stdout
    refused = pan_reid(*asked, "--fpr", "0.5")
    assert refused.returncode != 0
    assert "it has thresholds for: 0.001" in refused.stderr


def hits(url: str, *arguments: str) -> list[tuple[str | None, str | None]]:
    """Person and camera of each hit of a search, best first."""
    said = pan_reid("search", "--gallery", "lobby", "--url", url, "--json", *arguments)
    assert said.returncode == 0, said.stderr
    answer = schemas.SearchAnswer.model_validate_json(said.stdout)
    return [(hit.person_id, hit.camera_id) for hit in answer.hits or []]


def test_a_box_in_a_frame_finds_the_person_in_it(url: str, tmp_path: Path) -> None:
    frame = Image.new("RGB", (300, 200), (90, 120, 90))
    crop = Image.open(BytesIO(png(4, 7)))
    frame.paste(crop, (120, 30))
    frame.save(tmp_path / "frame.png")
    box = f"120,30,{crop.width},{crop.height}"
    whole = str(tmp_path / "crop.png")
    crop.save(whole)
    found = hits(url, str(tmp_path / "frame.png"), "--box", box)
    assert found == hits(url, whole)
    assert found[0][0] == "p4"
    two = pan_reid("search", whole, whole, "--box", box, "--gallery", "lobby", "--url", url)
    assert (two.returncode, "--box needs exactly one image" in two.stderr) == (2, True)
    wrong = pan_reid("search", whole, "--box", "1,2,3", "--gallery", "lobby", "--url", url)
    assert (wrong.returncode, "give X,Y,WIDTH,HEIGHT in pixels" in wrong.stderr) == (2, True)


def test_a_search_by_vectors_equals_a_search_by_their_images(url: str, tmp_path: Path) -> None:
    pictures = [tmp_path / "1.png", tmp_path / "2.png"]
    for place, path in enumerate(pictures):
        path.write_bytes(png(2, 7 + place))
    with Client(url) as client:
        vectors = client.embed([path.read_bytes() for path in pictures])
        fingerprint = client.model().fingerprint
    np.save(tmp_path / "both.npy", vectors)
    (tmp_path / "first.json").write_text(json.dumps(vectors[0].tolist()))
    np.save(tmp_path / "second.npy", vectors[1])
    by_images = hits(url, *map(str, pictures))
    assert hits(url, "--vector", str(tmp_path / "both.npy")) == by_images
    apart = ("--vector", str(tmp_path / "first.json"), "--vector", str(tmp_path / "second.npy"))
    assert hits(url, *apart, "--fingerprint", fingerprint) == by_images
    foreign = pan_reid("search", "--gallery", "lobby", "--url", url, *apart, "--fingerprint", "0" * 64)
    assert foreign.returncode == 1
    assert "vectors of two models cannot be compared" in foreign.stderr
    (tmp_path / "text.json").write_text("not a vector")
    wrong = pan_reid("search", "--gallery", "lobby", "--url", url, "--vector", str(tmp_path / "text.json"))
    assert (wrong.returncode, "has no vectors" in wrong.stderr) == (2, True)


def test_the_table_of_a_reranked_search_shows_the_distance(url: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(3, 7))
    said = pan_reid("search", str(tmp_path / "x.png"), "--gallery", "lobby", "--url", url, "--rerank")
    assert "distance" in said.stdout


def test_every_member_of_a_search_and_of_a_comparison_has_an_option() -> None:
    other_names = {
        "false_positive_rate": "fpr", "cameras": "camera", "exclude_cameras": "exclude_camera", "persons": "person",
        "exclude_persons": "exclude_person", "captured_from": "since", "captured_until": "until",
        "attributes": "attribute", "camera_id": "query_camera", "person_id": "query_person",
        "group_by": "group_by_person", "images": "image", "boxes": "box", "vectors": "vector", "entry_id": "entry",
        "entry_ids": "entry",
    }  # fmt: skip
    document = openapi_document()
    group: Any = typer.main.get_command(app)
    for path, command in (("/v1/galleries/{gallery}/search", "search"), ("/v1/compare", "compare")):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        options = {param.name for param in group.commands[command].params}
        assert {other_names.get(name, name) for name in body["properties"]} - options == set()
