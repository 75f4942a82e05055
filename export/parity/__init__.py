"""Comparison of an engine with PyTorch: the crops, the measurement, the gates that an engine must pass, and latency.

Imports `bundle`, `training` and `export.errors`. Public: the names in `__all__`.
"""

from export.parity.agreement import Agreement, Reference, check_gates
from export.parity.gates import DEFAULTS, Gates, parse_gates
from export.parity.latency import ms_per_crop
from export.parity.samples import Samples, load_samples

__all__ = [
    "DEFAULTS",
    "Agreement",
    "Gates",
    "Reference",
    "Samples",
    "check_gates",
    "load_samples",
    "ms_per_crop",
    "parse_gates",
]
