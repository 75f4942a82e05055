"""Snapshots of trained indexes: a restart uses a valid one, and trains again without one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.index.choice import AnnKind
from service.storage import galleries as gallery_records
from tests.support.galleries import IndexRig, OpenRig, clustered, recall_at_10

ROWS = 2100
VECTORS = clustered(ROWS)
QUERIES = clustered(30, seed=7)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a trained index of kind `ivf_sq8` and its snapshot 1-1.npz."""
    folder = tmp_path_factory.mktemp("trained")
    rig = IndexRig(folder, "ivf_sq8", 32)
    rig.enrol(VECTORS)
    assert rig.maintain() == {"trained"}
    assert rig.snapshot_names == ["1-1.npz"]
    rig.database.close()
    return folder


@pytest.mark.parametrize("kind", ["hnsw", "ivf_sq8"])
def test_a_restart_restores_the_index(open_rig: OpenRig, kind: AnnKind) -> None:
    rig = open_rig(kind)
    rig.enrol(VECTORS)
    rig.maintain()
    files = [file.read_bytes() for file in rig.snapshots.glob("*.npz")]
    assert not any(vector.tobytes() in data for data in files for vector in VECTORS[::500])
    rig = open_rig(kind)
    rig.enrol(clustered(200, seed=4))
    assert rig.maintain() == {"restored"}
    assert rig.segment.ann is not None
    assert rig.segment.ann.kind == kind
    assert recall_at_10(rig, QUERIES) >= 0.98


def test_a_graph_with_deleted_entries_is_not_restored(open_rig: OpenRig) -> None:
    rig = open_rig("hnsw")
    ids = rig.enrol(VECTORS)
    rig.maintain()
    rig.delete(ids[:5])
    rig = open_rig("hnsw")
    assert rig.maintain() == {"trained"}
    rig.maintainer._snapshots.sweep()
    assert rig.snapshot_names == ["1-2.npz"]
    rig.delete(ids[5:6])
    rig.maintain()  # a graph reveals the neighbours of a deleted entry
    rig.maintainer._snapshots.sweep()
    assert rig.snapshot_names == []


def corrupt(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def replace(file: Path) -> None:
    file.write_bytes(b"from another database")


@pytest.mark.parametrize("harm", [corrupt, replace, Path.unlink])
def test_an_invalid_snapshot_is_not_used(open_rig: OpenRig, trained: Path, tmp_path: Path, harm: Any) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    harm(tmp_path / "snapshots" / "1-1.npz")
    rig = open_rig("ivf_sq8")
    assert rig.maintain() == {"trained"}
    assert recall_at_10(rig, QUERIES) >= 0.98
    rig.maintainer._snapshots.sweep()
    assert rig.snapshot_names == ["1-2.npz"]


def test_snapshots_of_deleted_galleries_and_partial_files_are_removed(
    open_rig: OpenRig, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    rig = open_rig("ivf_sq8")
    (rig.snapshots / "1-2.tmp").write_bytes(b"partial")
    (rig.snapshots / "notes.txt").write_bytes(b"not a snapshot")
    rig.database.submit_write(lambda db: gallery_records.delete_gallery(db, 1)).result()
    rig.maintainer._snapshots.sweep()
    assert rig.snapshot_names == ["notes.txt"]
