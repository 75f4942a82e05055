"""INT8: calibration, Q/DQ graphs for CPUs and for TensorRT, and the search for blocks that must stay in float.

`quantise_to_pass` returns the INT8 graph with the fewest blocks in float that passes its gates.
"""

from export.quantisation.qdq import Calibrated, calibrate, quantise
from export.quantisation.sensitivity import Quantised, quantise_to_pass

__all__ = ["Calibrated", "Quantised", "calibrate", "quantise", "quantise_to_pass"]
