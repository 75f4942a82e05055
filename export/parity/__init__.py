"""Comparison of an engine with PyTorch: the crops, the measurement, the gates that an engine must pass, and latency."""

from export.parity.agreement import Agreement, Reference, require
from export.parity.gates import DEFAULTS, Gates, parse_gates
from export.parity.latency import milliseconds_a_crop
from export.parity.samples import Samples, measuring_samples

__all__ = [
    "DEFAULTS",
    "Agreement",
    "Gates",
    "Reference",
    "Samples",
    "measuring_samples",
    "milliseconds_a_crop",
    "parse_gates",
    "require",
]
