"""The examination of entries."""

from contextlib import closing
from pathlib import Path

import numpy as np

from service.core.models import NewEntry
from service.storage.connection import open_writer
from service.storage.entries import insert_entries
from service.storage.entry_integrity import examine_entries
from service.storage.galleries import insert_gallery
from service.storage.gallery_integrity import MAX_DIM


def test_a_chunk_holds_at_most_16_mib_of_vectors_at_the_largest_dimension(tmp_path: Path) -> None:
    entries = 80  # 20 MiB of vectors
    vectors = np.zeros((entries, MAX_DIM), np.float32)
    vectors[np.arange(entries), np.arange(entries)] = 1
    with closing(open_writer(tmp_path / "pan.sqlite3")) as db:
        gallery = insert_gallery(db, "g", "", "flat", "0" * 64, MAX_DIM)
        ids = insert_entries(db, gallery.id, [NewEntry()] * entries, vectors)
        chunks = [
            (chunk.valid.ids, chunk.vectors.nbytes, chunk.vectors.argmax(1).tolist(), chunk.damaged)
            for chunk in examine_entries(db, gallery.id, MAX_DIM)
        ]
    assert [id_ for found, *_ in chunks for id_ in found] == ids
    assert max(size for _, size, _, _ in chunks) <= 2**24
    assert [place for _, _, places, _ in chunks for place in places] == list(range(entries))
    assert [damage for *_, damaged in chunks for damage in damaged] == []
