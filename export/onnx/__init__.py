"""ONNX graphs of a network.

`graph` traces the network; `float16` converts the graph; `explain` traces masks and maps; `diff` compares two graphs
tensor by tensor. Imports `bundle`, `training` and `export.errors`; `explain` also `export.parity`.
"""

from export.onnx.diff import compare_graphs, first_difference
from export.onnx.explain import explain_graph
from export.onnx.float16 import to_float16
from export.onnx.graph import INPUT, OPSET, OUTPUT, onnx_graph

__all__ = [
    "INPUT",
    "OPSET",
    "OUTPUT",
    "compare_graphs",
    "explain_graph",
    "first_difference",
    "onnx_graph",
    "to_float16",
]
