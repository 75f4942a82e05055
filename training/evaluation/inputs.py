"""Input of the evaluation: embeddings and labels of query and gallery.

Shapes: Q queries, G gallery rows, D numbers of an embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.errors import DataError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

JUNK = -1
DISTRACTOR = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """Person and camera of each row; (Q,) or (G,) each."""

    person: Ints
    camera: Ints


class Embedded(NamedTuple):
    """Both sides of a data set, embedded: `evaluate_embeddings(*embedded)`."""

    query_QD: Floats
    query: Labels
    gallery_GD: Floats
    gallery: Labels
    data: str = "embeddings"

    def checked(self) -> "Embedded":
        """A copy with rows of unit length. Raises DataError if shapes disagree or a value is not finite."""
        for side, rows, labels in (
            ("query", self.query_QD, self.query),
            ("gallery", self.gallery_GD, self.gallery),
        ):
            if rows.ndim != 2 or not len(rows) == len(labels.person) == len(labels.camera):
                raise DataError(
                    f"{side}: {rows.shape} embeddings, {len(labels.person)} ids, {len(labels.camera)} cameras"
                )
            if not np.isfinite(rows).all():
                raise DataError(f"{side}: some embeddings are not finite numbers")
        if self.query_QD.shape[1] != self.gallery_GD.shape[1]:
            raise DataError(
                f"query embeddings have {self.query_QD.shape[1]} numbers, gallery ones {self.gallery_GD.shape[1]}"
            )
        return self._replace(query_QD=unit(self.query_QD), gallery_GD=unit(self.gallery_GD))

    def without_junk(self) -> "Embedded":
        """A copy without the junk of the gallery."""
        kept = self.gallery.person != JUNK
        labels = Labels(self.gallery.person[kept], self.gallery.camera[kept])
        return self._replace(gallery_GD=self.gallery_GD[kept], gallery=labels)


def unit(rows_ND: Floats) -> Floats:
    """Rows normalised to length 1; a row of zeros stays zero."""
    norm = np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows_ND / norm, np.float32)
