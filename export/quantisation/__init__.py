"""INT8: calibration, Q/DQ graphs for CPUs and for TensorRT, and the search for blocks that must stay in float.

`quantise_within_gates` returns the INT8 graph with the fewest blocks in float that passes its gates.
Imports `export.onnx` and `export.parity`.
"""

from export.quantisation.qdq import CalibratedGraph, calibrate, quantise
from export.quantisation.sensitivity import QuantisedGraph, quantise_within_gates

__all__ = ["CalibratedGraph", "QuantisedGraph", "calibrate", "quantise", "quantise_within_gates"]
