"""Evaluation of embeddings: ranking by the official protocol, verification, open-set rates, cameras, calibration.

One pass over blocks of queries feeds every measurement, so the Q x G matrix of similarities never exists.
"""

from training.evaluation.blocks import Similarity, cosine
from training.evaluation.cameras import CameraPair
from training.evaluation.inputs import JUNK, Embedded, Floats, Ints, Labels, unit
from training.evaluation.openset import OpenSet
from training.evaluation.report import Report, calibrate, evaluate_embeddings, evaluate_similarity, full_report
from training.evaluation.thresholds import OperatingPoint
from training.evaluation.verification import Verification

__all__ = [
    "JUNK",
    "CameraPair",
    "Embedded",
    "Floats",
    "Ints",
    "Labels",
    "OpenSet",
    "OperatingPoint",
    "Report",
    "Similarity",
    "Verification",
    "calibrate",
    "cosine",
    "evaluate_embeddings",
    "evaluate_similarity",
    "full_report",
    "unit",
]
