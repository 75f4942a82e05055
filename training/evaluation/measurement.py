"""The measurements of `pan-train evaluate`: plain ranking, and optionally the full report, expansion, re-ranking."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import numpy.typing as npt

from bundle import Evaluation
from training.errors import DataError
from training.evaluation import (
    Embedded,
    Labels,
    Report,
    evaluate_embeddings,
    evaluate_similarity,
    full_report,
)
from training.evaluation.inputs import DISTRACTOR
from training.evaluation.query_expansion import ALPHA, expand_queries
from training.evaluation.reranking import K1, K2, LAMBDA, rerank

KEYS = ("query", "query_id", "query_camera", "gallery", "gallery_id", "gallery_camera")


@dataclass(frozen=True, slots=True)
class EvaluationResults:
    """The plain ranking, and the requested further measurements; None for the others."""

    plain: Evaluation
    report: Report | None
    expanded: Evaluation | None
    reranked: Evaluation | None

    def as_json(self) -> dict[str, Any]:
        """The fields of the plain figures, and one key for each further measurement."""
        fields: dict[str, Any] = self.plain.model_dump(mode="json")
        if report := self.report:
            fields |= {
                "verification": asdict(report.verification),
                "open_set": asdict(report.open_set),
                "cameras": [asdict(pair) for pair in report.cameras],
                "calibration": report.calibration and report.calibration.model_dump(mode="json"),
            }
        for name, evaluation in (("expanded", self.expanded), ("reranked", self.reranked)):
            if evaluation:
                fields[name] = evaluation.model_dump(mode="json")
        return fields


def measure(embedded: Embedded, *, full: bool, neighbours: int | None, reranked: bool) -> EvaluationResults:
    """Measure the ranking. `neighbours` (K of query expansion) and `reranked` each apply to the plain embeddings.

    Raises DataError.
    """
    report = full_report(embedded) if full else None
    plain = report.evaluation if report else evaluate_embeddings(*embedded)
    expanded = again = None
    if neighbours or reranked:
        rows = embedded.checked().without_junk()
    if neighbours:
        query_QD = expand_queries(rows.query_QD, rows.gallery_GD, neighbours)
        name = f"{rows.data}, query expansion ({neighbours} neighbours, alpha {ALPHA:g})"
        expanded = evaluate_embeddings(*rows._replace(query_QD=query_QD, data=name))
    if reranked:
        similarity = rerank(rows.query_QD, rows.gallery_GD)
        name = f"{rows.data}, re-ranked (k1 {K1}, k2 {K2}, lambda {LAMBDA:g})"
        again = evaluate_similarity(similarity, rows.query, rows.gallery, name)
    return EvaluationResults(plain, report, expanded, again)


def read_features(path: Path) -> Embedded:
    """Embeddings and labels from an .npz file. Raises DataError."""
    arrays = _read_arrays(path)

    def labels(side: str) -> Labels:
        return Labels(arrays[f"{side}_id"].astype(np.int64), arrays[f"{side}_camera"].astype(np.int64))

    query = labels("query")
    if invalid := int((query.person <= DISTRACTOR).sum()):
        raise DataError(
            f"{path}: {invalid} query ids are 0 or less (0 is a distractor, -1 junk); number persons from 1 "
            "and remove other queries"
        )
    return Embedded(arrays["query"], query, arrays["gallery"], labels("gallery"), path.name)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if not is_zipfile(path):
        raise DataError(f"{path} is not an .npz file; write one with numpy.savez, with the arrays {', '.join(KEYS)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise DataError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(KEYS)}")
            arrays = {key: file[key] for key in KEYS}
    except (OSError, ValueError, BadZipFile) as error:
        why = "an array holds objects instead of numbers" if "allow_pickle" in str(error) else str(error)
        raise DataError(f"{path} cannot be read as .npz: {why}; write it again with numpy.savez") from None
    for key, array in arrays.items():
        rows = key in ("query", "gallery")
        usable = array.dtype.kind in "fiu" and array.ndim == (2 if rows else 1)
        if not usable or not (rows or np.array_equal(array, np.trunc(array))):
            wanted = "rows of numbers" if rows else "a row of whole numbers"
            raise DataError(f"{path}: {key} is {array.dtype} of shape {array.shape}; it must be {wanted}")
    return arrays
