"""All measurements in one report. Shapes: Q queries, G gallery rows, D numbers of an embedding."""

from dataclasses import dataclass

from bundle import Calibration, Evaluation
from training.evaluation.blocks import Similarity, cosine, measure
from training.evaluation.calibration import Histogram
from training.evaluation.cameras import CameraPair, Cameras
from training.evaluation.inputs import Embedded, Floats, Labels
from training.evaluation.openset import OpenSet, Searches
from training.evaluation.ranking import Ranking
from training.evaluation.verification import Pairs, Verification


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured on one data set."""

    evaluation: Evaluation
    verification: Verification
    open_set: OpenSet
    cameras: tuple[CameraPair, ...]
    calibration: Calibration | None


def evaluate_similarity(
    similarity: Similarity, query: Labels, gallery: Labels, data: str = "similarities"
) -> Evaluation:
    """Evaluate the ranking of the gallery by any similarity; figures in per cent.

    `similarity(rows)` gives (len(rows), G), larger is closer. It is called for one block of queries at a time.
    Raises DataError if no query has a positive.
    """
    ranking = Ranking(gallery)
    measure(similarity, query, gallery, ranking)
    return ranking.result(data)


def evaluate_embeddings(
    query_QD: Floats, query: Labels, gallery_GD: Floats, gallery: Labels, data: str = "embeddings"
) -> Evaluation:
    """As `evaluate_similarity`, by cosine. Raises DataError also if shapes disagree or a value is not finite."""
    rows = Embedded(query_QD, query, gallery_GD, gallery, data).checked()
    return evaluate_similarity(cosine(rows.query_QD, rows.gallery_GD), query, gallery, data)


def calibrate(embedded: Embedded) -> Calibration | None:
    """Thresholds at stated false-positive rates, and cosine -> probability; None if there are no comparable pairs.

    Raises DataError if shapes disagree or a value is not finite.
    """
    rows = embedded.checked()
    pairs, histogram = Pairs(rows.query, rows.gallery), Histogram()
    measure(cosine(rows.query_QD, rows.gallery_GD), rows.query, rows.gallery, pairs, histogram)
    return histogram.result(pairs.result(), rows.data)


def full_report(embedded: Embedded) -> Report:
    """Every measurement, in one pass over the similarities. Raises DataError."""
    rows = embedded.checked()
    ranking, pairs, histogram = Ranking(rows.gallery), Pairs(rows.query, rows.gallery), Histogram()
    searches, cameras = Searches(), Cameras(rows.query, rows.gallery)
    similarity = cosine(rows.query_QD, rows.gallery_GD)
    measure(similarity, rows.query, rows.gallery, ranking, pairs, histogram, searches, cameras)
    verification = pairs.result()
    return Report(
        evaluation=ranking.result(rows.data),
        verification=verification,
        open_set=searches.result(),
        cameras=cameras.result(),
        calibration=histogram.result(verification, rows.data),
    )
