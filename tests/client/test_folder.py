"""Metadata from the file names of crops."""

from pathlib import Path

import pytest

from pan_reid.cli.folder import FolderError, find_crops


@pytest.mark.parametrize(
    ("name", "person", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", "0002", "c1"),
        ("query/1501_c6s4_001877_00.jpg", "1501", "c6"),
        ("0000_c3s2_000001_01.jpg", None, "c3"),
        ("0005_c12_f0000123.jpg", "0005", "c12"),
        ("anna/lobby_17.jpg", "anna", "lobby"),
        ("site/anna/lobby_17.PNG", "anna", "lobby"),
        ("anna/17.webp", "anna", None),
        ("stranger.bmp", None, None),
    ],
)
def test_a_name_gives_person_and_camera(tmp_path: Path, name: str, person: str | None, camera: str | None) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    (found,) = find_crops(tmp_path)
    assert found.path == path
    assert (found.info.person_id, found.info.camera_id) == (person, camera)
    assert found.info.attributes == {"file": name}


def test_crops_are_sorted_by_path_without_junk_and_other_files(tmp_path: Path) -> None:
    for name in ("b/c1_2.jpg", "a/c1_1.jpg", "-1_c1s1_000001_01.jpg", "Thumbs.db", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [crop.path.relative_to(tmp_path).as_posix() for crop in find_crops(tmp_path)] == ["a/c1_1.jpg", "b/c1_2.jpg"]


def test_a_folder_without_crops_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="has no images"):
        find_crops(tmp_path)
    with pytest.raises(FolderError, match="is not a folder"):
        find_crops(tmp_path / "missing")
