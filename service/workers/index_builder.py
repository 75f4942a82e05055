"""Trains, extends, measures and compacts the index of a gallery, while searches and changes go on.

The lock of a gallery is held for short times only. An approximate index answers searches only for the rows over which
its recall was measured; until then, and while its recall is below the target, searches are exact.
"""

from collections.abc import Callable

import numpy as np

from service.core.types import Rows
from service.index.ann import COMPONENTS, AnnIndex, State, principal_components
from service.index.choice import AnnKind
from service.index.gallery_index import GalleryIndex
from service.index.gpu import gpu_available
from service.index.metadata import MetadataTable
from service.index.reader import SegmentReader
from service.index.recall import Probes, add_missing, choose_probes, measure
from service.index.segment import Segment

_TAIL = 2**22  # vector components that are searched exactly because their rows are not in the index yet: 0.5 ms
_MIN_DELETED = 64  # rows
_MAX_DELETED_SHARE = 0.2  # of rows; then the rows are copied without the deleted ones
_REMEASURE_SHARE = 0.01  # of rows that were deleted since the last measurement
_TURNOVER = 0.5  # share of rows that were added or deleted since training; then the index is trained again
_SAMPLE = 65_536  # rows for training


class IndexBuilder:
    """Use it from one thread."""

    def __init__(self, clock: Callable[[], int], check_cancelled: Callable[[], None]) -> None:
        """`clock` gives the time of measurements. `check_cancelled` is called often, and raises to cancel the work."""
        self._clock = clock
        self._check_cancelled = check_cancelled

    def needs_compaction(self, segment: Segment) -> bool:
        """Whether so many rows are deleted that they slow searches down."""
        share = _MAX_DELETED_SHARE
        if segment.ann is not None:
            share = min(share, 1.0 - segment.ann.min_live_fraction)
        return segment.metadata.deleted_count > max(_MIN_DELETED, share * len(segment))

    def needs_training(self, segment: Segment, index: AnnIndex) -> bool:
        """Whether so many rows were added or deleted since training that the index may not fit the gallery."""
        live, end = segment.metadata.live, np.searchsorted(segment.metadata.entries, index.trained_until, "right")
        left = int(np.count_nonzero(live[:end]))  # of the rows of the training
        turnover = 1.0 - left / max(1, index.trained_rows, int(np.count_nonzero(live)))
        return turnover > (_TURNOVER if index.trusted else index.retrain_after)

    def needs_measuring(self, segment: Segment, index: AnnIndex) -> bool:
        """Whether the index lacks many rows, or many rows were deleted since its recall was measured."""
        if index.measured is None or (len(segment) - len(index)) * segment.exact.dim > _TAIL:
            return True
        deleted = segment.metadata.deleted_count - index.measured.deleted_count
        return deleted > max(_MIN_DELETED, _REMEASURE_SHARE * len(segment))

    def compact(self, gallery: GalleryIndex) -> None:
        """Replace the rows by a copy without the deleted ones."""
        gallery.compact(lambda metadata, rows: self._copy(gallery, metadata, rows))

    def train(self, gallery: GalleryIndex, kind: AnnKind) -> None:
        """Train a new index and search with it. More components are tried until its recall reaches the target."""
        segment, before = gallery.segment, gallery.segment.ann
        reader = SegmentReader(segment, gallery.lock, self._check_cancelled)
        probes = self._choose_probes(reader, None)
        live = np.flatnonzero(reader.live(probes.covered))
        rows = np.setdiff1d(live, probes.rows)
        sample = np.sort(np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False))
        vectors = np.concatenate(list(reader.vectors(sample)))
        until = int(segment.metadata.entries[probes.covered - 1])
        components = principal_components(vectors, max(COMPONENTS))
        for count in COMPONENTS:
            projection = np.ascontiguousarray(components[:, :count])
            index = AnnIndex.train(kind, vectors, projection, len(live), until)
            self._fill(reader, index, probes)
            if index.trusted or count >= segment.exact.dim:
                break
        if not index.trusted and before is not None:
            index.retrain_after = min(_TURNOVER, 2 * before.retrain_after)
        self._install(gallery, segment, index)

    def extend(self, gallery: GalleryIndex, segment: Segment, index: AnnIndex) -> bool:
        """Add the missing rows to an index and measure its recall. Returns whether there were any."""
        before = len(index)
        self._fill(SegmentReader(segment, gallery.lock, self._check_cancelled), index)
        return len(index) > before

    def restore(self, gallery: GalleryIndex, state: State) -> AnnIndex | None:
        """Search with an index from its saved state; None if rows of a graph were deleted since it was saved."""
        segment = gallery.segment
        reader = SegmentReader(segment, gallery.lock, self._check_cancelled)
        with gallery.lock.read():
            live, entries = segment.metadata.live.copy(), segment.metadata.entries.copy()
        nodes = state.pop("entries", entries[:0])
        if not np.isin(nodes, entries[live]).all():
            return None
        rows = np.searchsorted(entries, nodes)
        index = AnnIndex.restored(state, rows, list(reader.vectors(rows)))
        self._fill(reader, index)
        self._install(gallery, segment, index)
        return index

    def copy_to_gpu(self, gallery: GalleryIndex, segment: Segment) -> bool:
        """Copy what searches use to the GPU. Returns whether something was copied."""
        if not gpu_available() or len(segment) == 0:
            return False
        with gallery.lock.read():
            if segment.ann is None:
                return segment.exact.copy_to_gpu(_TAIL // segment.exact.dim)
            return segment.ann.copy_to_gpu()

    def _copy(self, gallery: GalleryIndex, metadata: MetadataTable, rows: Rows) -> Segment:
        old, new = gallery.segment, Segment(gallery.segment.exact.dim)
        new.metadata = metadata
        for vectors in SegmentReader(old, gallery.lock, self._check_cancelled).vectors(rows):
            new.exact.add(vectors)
        if old.ann is not None:
            index = old.ann.empty()
            self._fill(SegmentReader(new, gallery.lock, self._check_cancelled), index)
            new.ann = index
        return new

    def _install(self, gallery: GalleryIndex, segment: Segment, index: AnnIndex) -> None:
        """Search with an index, without the rows that were deleted while it was built."""
        with gallery.lock.write():
            if gallery.segment is segment:
                index.wipe(np.flatnonzero(index.holds(len(segment)) & ~segment.metadata.live))
                segment.ann = index

    def _choose_probes(self, reader: SegmentReader, index: AnnIndex | None) -> Probes:
        """The newest probes were added after the last measurement, or are as many rows as are searched exactly."""
        newest = len(reader.segment) - _TAIL // reader.segment.exact.dim
        return choose_probes(reader, index, min(newest, len(index)) if index is not None and len(index) else newest)

    def _fill(self, reader: SegmentReader, index: AnnIndex, probes: Probes | None = None) -> None:
        """Add the missing rows to an index and measure it. Until then searches rely on the last measurement."""
        probes = probes or self._choose_probes(reader, index)
        add_missing(reader, index, probes, attached=reader.segment.ann is index)
        measured = measure(reader, index, probes, self._clock())
        with reader.lock.write():
            index.measured = measured
            index.initial_params = measured.search_params or index.initial_params
