"""Tables of the figures that `pan-train evaluate` and `pan-train run` print."""

from collections.abc import Iterator

from rich.table import Table

from bundle import Evaluation
from training.evaluation import CameraPair, OperatingPoint
from training.evaluation.measurement import EvaluationResults


def result_tables(results: EvaluationResults) -> Iterator[Table | str]:
    """The tables to print, in order."""
    for evaluation in (results.plain, results.expanded, results.reranked):
        if evaluation:
            yield ranking_table(evaluation)
    if report := results.report:
        pairs, searches = report.verification, report.open_set
        title = f"verification: {pairs.positives} positive and {pairs.negatives} negative pairs"
        yield _rate_table(title, "false-positive rate", "TPR", pairs.at)
        if calibration := report.calibration:
            exponent = f"-({calibration.slope:.2f} cosine {calibration.intercept:+.2f})"
            yield f"probability of one person, at even odds = 1 / (1 + exp({exponent}))\n"
        title = f"open set: {searches.mated} mated and {searches.non_mated} non-mated searches"
        yield _rate_table(title, "FPIR", "DIR", searches.at)
        yield _camera_table(report.cameras)


def ranking_table(evaluation: Evaluation) -> Table:
    """CMC, mAP and mINP in one row."""
    table = Table(title=f"{evaluation.data}: {evaluation.queries} queries, {evaluation.gallery} gallery crops")
    for name in (*(f"rank-{rank}" for rank in evaluation.cmc), "mAP", "mAP_official", "mINP"):
        table.add_column(name, justify="right")
    figures = (*evaluation.cmc.values(), evaluation.mAP, evaluation.mAP_official, evaluation.mINP)
    table.add_row(*(f"{figure:.2f}" for figure in figures))
    return table


def _rate_table(title: str, rate: str, found: str, at: tuple[OperatingPoint, ...]) -> Table:
    table = Table(title=title)
    for name in (rate, "threshold", found):
        table.add_column(name, justify="right")
    for row in at:
        table.add_row(f"{row.rate:g}", f"{row.threshold:.4f}", f"{row.found:.2f}")
    if not at:
        table.caption = "too few to measure a rate by"
    return table


def _camera_table(pairs: tuple[CameraPair, ...]) -> Table:
    table = Table(title="by camera")
    for name in ("query camera", "gallery camera", "queries", "rank-1", "mAP"):
        table.add_column(name, justify="right")
    for pair in pairs:
        cameras = (f"{pair.query_camera}", f"{pair.gallery_camera}", f"{pair.queries}")
        table.add_row(*cameras, f"{pair.rank1:.2f}", f"{pair.mAP:.2f}")
    return table
