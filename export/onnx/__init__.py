"""ONNX graphs: tracing the network, the float16 graph, the graph of maps, and the comparison of two graphs.

`graph` traces; `float16` and `explain` derive further graphs; `diff` compares two graphs tensor by tensor.
"""

from export.onnx.diff import compare_graphs, first_departure
from export.onnx.explain import explain_graph
from export.onnx.float16 import to_float16
from export.onnx.graph import INPUT, OPSET, OUTPUT, onnx_graph

__all__ = [
    "INPUT",
    "OPSET",
    "OUTPUT",
    "compare_graphs",
    "explain_graph",
    "first_departure",
    "onnx_graph",
    "to_float16",
]
