"""The ranking by camera pair: queries of one camera against the gallery rows of another."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from training.evaluation.blocks import Block, positive_ranks
from training.evaluation.inputs import Labels
from training.evaluation.ranking import QueryScore, mean_percent, score


@dataclass(frozen=True, slots=True)
class CameraPair:
    """Figures in per cent over the queries of one camera that have a positive in the other."""

    query_camera: int
    gallery_camera: int
    queries: int
    mAP: float
    rank1: float


class Cameras:
    """Ranks every query separately for each gallery camera."""

    def __init__(self, query: Labels, gallery: Labels) -> None:
        self.camera = query.camera
        self.columns = {int(camera): np.flatnonzero(gallery.camera == camera) for camera in np.unique(gallery.camera)}
        self.scores: dict[tuple[int, int], list[QueryScore]] = defaultdict(list)

    def add(self, block: Block) -> None:
        """QueryScore the block's queries, camera by camera."""
        for camera, columns in self.columns.items():
            similarity, positive = block.similarity_BG[:, columns], block.positive_BG[:, columns]
            negative = block.negative_BG[:, columns]
            for index in np.flatnonzero(positive.any(1)):
                pair = (int(self.camera[block.rows][index]), camera)
                self.scores[pair].append(score(positive_ranks(similarity[index], positive[index], negative[index])))

    def result(self) -> tuple[CameraPair, ...]:
        """One row for each camera pair with a positive, ordered by camera."""
        return tuple(
            CameraPair(
                query_camera=pair[0],
                gallery_camera=pair[1],
                queries=len(scores),
                mAP=mean_percent(score.precision for score in scores),
                rank1=mean_percent(score.first == 1 for score in scores),
            )
            for pair, scores in sorted(self.scores.items())
        )
