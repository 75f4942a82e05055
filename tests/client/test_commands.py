"""`pan-reid` in a subprocess, against a real server: galleries, persons, enrolment, comparison."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pan_reid import Client
from service.core.settings import Settings
from tests.support.bundles import write_bundle
from tests.support.pictures import png
from tests.support.servers import pan_reid, running


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"))
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"))) as http:
        yield str(http.base_url)


def ask(url: str, *arguments: str) -> Any:
    """Run a command, and parse the JSON that it prints."""
    done = pan_reid(*arguments, "--url", url, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def folder_of(path: Path, names: list[str]) -> Path:
    """A folder with a different image under each name."""
    for number, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(number % 4, number))
    return path


def test_galleries_are_created_listed_changed_and_deleted(url: str) -> None:
    made = ask(url, "galleries", "make", "shop", "--purpose", "a test", "--retention-days", "30", "--keep-crops")
    assert (made["purpose"], made["retention_days"], made["keep_crops"]) == ("a test", 30, True)
    changed = ask(url, "galleries", "change", "shop", "--no-retention", "--no-keep-crops", "--index", "flat")
    assert (changed.get("retention_days"), changed["keep_crops"], changed["index"]) == (None, False, "flat")
    assert changed["purpose"] == "a test"  # what is left out stays
    assert "shop" in [one["name"] for one in ask(url, "galleries", "list")]
    assert "a test" in pan_reid("galleries", "list", "--url", url).stdout
    unsure = pan_reid("galleries", "delete", "shop", "--url", url)
    assert unsure.returncode == 1
    assert "Erase gallery shop with 0 entries?" in unsure.stderr
    assert "shop" in [one["name"] for one in ask(url, "galleries", "list")]
    assert ask(url, "galleries", "delete", "shop", "--yes")["gallery"] == "shop"
    assert "shop" not in [one["name"] for one in ask(url, "galleries", "list")]
    assert pan_reid("galleries", "change", "shop", "--url", url).returncode == 2  # nothing to change


def test_a_person_is_listed_and_erased(url: str, tmp_path: Path) -> None:
    folder_of(tmp_path, ["ann/c1_1.png", "ann/c2_2.png", "bob/c1_1.png"])
    ask(url, "enrol", str(tmp_path), "--gallery", "people")
    assert [(one["person_id"], one["entries"]) for one in ask(url, "persons", "people")] == [("ann", 2), ("bob", 1)]
    assert "ann" in pan_reid("persons", "people", "--url", url).stdout
    assert pan_reid("erase", "people", "ann", "--url", url).returncode == 1
    receipt = ask(url, "erase", "people", "ann", "--yes")
    assert (receipt["person_id"], receipt["entries"]) == ("ann", 2)
    assert [one["person_id"] for one in ask(url, "persons", "people")] == ["bob"]


def test_enrolling_a_folder_twice_does_not_double_it(url: str, tmp_path: Path) -> None:
    folder_of(tmp_path, [f"p{n % 3}/c1_{n}.png" for n in range(9)])
    command = ("enrol", str(tmp_path), "--gallery", "twice", "--batch", "4")
    for _ in range(2):
        assert ask(url, *command) == {"crops": 9, "enrolled": 9, "failures": []}
        with Client(url) as client:
            assert client.gallery("twice").entries == 9
    ask(url, *command, "--again")
    with Client(url) as client:
        assert client.gallery("twice").entries == 18


def test_metadata_comes_from_options_file_names_and_a_csv_file(url: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "crops", ["ann/c1_1.png", "2.png", "3.png"])
    table = tmp_path / "crops.csv"
    table.write_text("file,person_id,captured_at,coat\n2.png,bob,2024-05-01T08:00:00Z,red\nann/c1_1.png,,,blue\n")
    options = ["--metadata", str(table), "--camera", "gate", "--time", "2024-04-01", "--attribute", "site=north"]
    settings = ["--keep-crops", "--retention-days", "36000", "--index", "flat"]
    done = pan_reid("enrol", str(folder), "--gallery", "table", "--url", url, *options, *settings)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 crops have no person" in done.stderr
    with Client(url) as client:
        gallery = client.gallery("table")
        entries = {str(entry.attributes["file"]): entry for entry in client.entries("table")}
    assert (gallery.keep_crops, gallery.retention_days, gallery.index) == (True, 36000, "flat")
    known = {name: (one.person_id, one.camera_id, str(one.captured_at)[:10]) for name, one in entries.items()}
    assert known == {
        "ann/c1_1.png": ("ann", "c1", "2024-04-01"),
        "2.png": ("bob", "gate", "2024-05-01"),
        "3.png": (None, "gate", "2024-04-01"),
    }
    assert [entries[name].attributes.get("coat") for name in ("ann/c1_1.png", "2.png", "3.png")] == [
        "blue",
        "red",
        None,
    ]
    assert {entry.attributes["site"] for entry in entries.values()} == {"north"}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("path\n1.png\n", "has no column `file`"),
        ("file\nelse.png\n", "line 2: there is no crop else.png"),
        ("file\n1.png\n1.png\n", "line 3: a second row for 1.png"),
        ("file,captured_at\n1.png,may\n", "line 2: captured_at: "),
        ("file\n1.png,x\n", "line 2: more cells than columns"),
    ],
)
def test_an_invalid_csv_file_enrols_nothing(url: str, tmp_path: Path, table: str, says: str) -> None:
    folder = folder_of(tmp_path / "crops", ["1.png"])
    (tmp_path / "t.csv").write_text(table)
    done = pan_reid("enrol", str(folder), "--gallery", "no", "--url", url, "--metadata", str(tmp_path / "t.csv"))
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
    assert "no" not in [one["name"] for one in ask(url, "galleries", "list")]


def test_a_folder_without_persons_and_cameras_is_reported(url: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["a.png", "b.png"])
    done = pan_reid("enrol", str(folder), "--gallery", "nameless", "--url", url)
    assert done.returncode == 0
    assert "no crop has a person" in done.stderr
    assert "no crop has a camera" in done.stderr


def test_every_option_of_a_search_has_its_effect(url: str, tmp_path: Path) -> None:
    names = [f"p{person}/c{camera}_1.png" for person in range(4) for camera in range(3)]
    ask(url, "enrol", str(folder_of(tmp_path, names)), "--gallery", "options")
    image = str(tmp_path / names[0])
    search = ("search", "--gallery", "options")

    def seen(*arguments: str) -> set[tuple[str, str]]:
        return {(hit["person_id"], hit["camera_id"]) for hit in ask(url, *search, *arguments)["hits"]}

    everybody = {(f"p{person}", f"c{camera}") for person in range(4) for camera in range(3)}
    assert seen(image, "--top-k", "50") == everybody
    assert seen(image, "--person", "p1", "--exclude-camera", "c0") == {("p1", "c1"), ("p1", "c2")}
    assert seen(image, "--exclude-person", "p1", "--camera", "c2", "--exclude-person", "p2") == {
        ("p0", "c2"),
        ("p3", "c2"),
    }
    own = ("--query-camera", "c0", "--query-person", "p0", "--top-k", "50")
    assert seen(image, *own, "--exclude-same-camera") == {one for one in everybody if one[1] != "c0"}
    assert seen(image, *own, "--exclude-same-person-same-camera") == everybody - {("p0", "c0")}
    judged = ask(
        url, *search, image, "--threshold", "0.5", "--group-by-person", "--group-score", "mean", "--examples", "1"
    )
    assert judged["decision"]["threshold"] == 0.5
    assert all(len(person["hits"]) == 1 for person in judged["persons"])
    ranked = ask(url, *search, image, "--rerank-option", "k1=5", "--rerank-option", "lambda=0.5")
    assert all("distance" in hit for hit in ranked["hits"])
    entry = ask(url, *search, image, "--top-k", "1")["hits"][0]["entry_id"]
    assert entry not in {hit["entry_id"] for hit in ask(url, *search, "--entry", str(entry))["hits"]}
    assert pan_reid(*search, "--url", url).returncode == 2
    table = pan_reid(*search, image, "--threshold", "0.5", "--url", url)
    assert "match at 0.5000 or more" in table.stdout


def test_two_sets_of_images_are_compared(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1, 1))
    image = str(tmp_path / "a.png")
    assert ask(url, "compare", "--a", image, "--b", image)["similarity"] == pytest.approx(1, abs=1e-5)
    assert "verdict match" in pan_reid("compare", "--a", image, "--b", image, "--threshold", "0.9", "--url", url).stdout


def test_the_command_prints_the_version_of_the_distribution() -> None:
    assert pan_reid("--version").stdout == f"pan-reid {version('pan-reid-client')}\n"
