"""`pan-train evaluate`: the plain ranking and the further measurements, as tables and JSON."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from training.cli.evaluation_tables import result_tables
from training.errors import DataError
from training.evaluation import Embedded, Labels, evaluate_embeddings
from training.evaluation.measurement import measure, read_features


def people() -> Embedded:
    """Embeddings of 30 people in three cameras, with a tenth of junk."""
    rng = np.random.default_rng(1)
    centre = rng.standard_normal((31, 32))

    def side(count: int, low: int) -> tuple[np.ndarray, Labels]:
        person = rng.integers(low, 31, count)
        rows = (centre[person] + 1.5 * rng.standard_normal((count, 32))).astype(np.float32)
        return rows, Labels(person, rng.integers(1, 4, count))

    query, gallery = side(120, 1), side(400, 1)
    gallery[1].person[::10] = -1
    return Embedded(*query, *gallery, "people.npz")


def save(data: Embedded, path: Path) -> None:
    labels = {"query_id": data.query.person, "query_camera": data.query.camera}
    labels |= {"gallery_id": data.gallery.person, "gallery_camera": data.gallery.camera}
    np.savez(path, query=data.query_QD, gallery=data.gallery_GD, **labels)


def test_json_has_the_plain_figures_and_all_further_measurements(tmp_path: Path) -> None:
    data = people()
    save(data, tmp_path / "people.npz")
    command = [sys.executable, "-m", "training.cli", "evaluate", "--features", str(tmp_path / "people.npz"), "--json"]
    done = subprocess.run(
        [*command, "--full", "--rerank", "--query-expansion", "3"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    plain = evaluate_embeddings(*data).model_dump(mode="json")
    assert {name: found.pop(name) for name in plain} == plain
    assert set(found) == {"verification", "open_set", "cameras", "calibration", "expanded", "reranked"}
    assert [at["rate"] for at in found["verification"]["at"]] == [0.01, 0.001]
    assert found["calibration"]["thresholds"]["0.01"] == found["verification"]["at"][0]["threshold"]
    assert found["open_set"]["mated"] == plain["queries"]
    assert len(found["cameras"]) == 6
    # both methods improve rankings of tight clusters
    assert found["reranked"]["mAP"] > plain["mAP"] + 1
    assert found["expanded"]["mAP"] > plain["mAP"] + 1
    assert "re-ranked" in found["reranked"]["data"]
    assert "query expansion" in found["expanded"]["data"]


def test_only_requested_measurements_are_made() -> None:
    results = measure(people(), full=False, neighbours=None, reranked=False)
    assert results.as_json() == evaluate_embeddings(*people()).model_dump(mode="json")


def test_junk_changes_neither_reranked_nor_expanded_figures() -> None:
    data = people()
    junk = data.gallery.person == -1
    moved = data._replace(gallery_GD=np.where(junk[:, None], data.query_QD[:1], data.gallery_GD))
    before, after = (measure(rows, full=False, neighbours=4, reranked=True) for rows in (data, moved))
    assert (before.reranked, before.expanded) == (after.reranked, after.expanded)


def test_tables_show_plain_and_reranked_figures_separately() -> None:
    results = measure(people(), full=True, neighbours=2, reranked=True)
    stream = io.StringIO()
    for table in result_tables(results):
        Console(file=stream, width=200).print(table)
    text = stream.getvalue()
    titles = ["people.npz: 120", "2 neighbours", "re-ranked (k1 20", "verification:", "open set:", "by camera"]
    assert sorted(text.index(title) for title in titles) == [text.index(title) for title in titles]
    assert results.reranked is not None
    assert f"{results.plain.mAP:.2f}" in text
    assert f"{results.reranked.mAP:.2f}" in text
    assert "1 / (1 + exp(-(" in text


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(DataError, match=r"is not an \.npz file; write one with numpy\.savez"):
        read_features(tmp_path / "text.npz")
    np.save(tmp_path / "rows.npy", np.eye(2))
    with pytest.raises(DataError, match=r"is not an \.npz file; write one with numpy\.savez"):
        read_features(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("query", np.array([{}, {}]), "holds objects instead of numbers"),
        ("gallery_id", np.array(["anna", "bo"]), "gallery_id is <U4 of shape .2,.; it must be a row of whole numbers"),
        ("query_camera", np.array([1.5, 2]), "must be a row of whole numbers"),
        ("query", np.zeros(2), "must be rows of numbers"),
        ("query_id", np.array([0, 1]), "1 query ids are 0 or less.* number persons from 1"),
    ],
)
def test_invalid_features_are_explained(tmp_path: Path, key: str, value: np.ndarray, words: str) -> None:
    arrays = {"query": np.eye(2), "query_id": [1, 2], "query_camera": [1, 1]}
    arrays |= {"gallery": np.eye(2), "gallery_id": [1, 2], "gallery_camera": [2, 2]}
    np.savez(tmp_path / "f.npz", allow_pickle=True, **(arrays | {key: value}))
    with pytest.raises(DataError, match=words) as raised:
        read_features(tmp_path / "f.npz")
    assert "pickle" not in str(raised.value)
