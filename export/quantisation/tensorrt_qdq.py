"""INT8 for TensorRT: Q/DQ pairs in the typed float16 graph, on the inputs of its fused kernels.

A fused kernel computes convolution + addition + ReLU. It runs in INT8 if the convolution's input, its weights and the
other input of the addition are dequantised. There is no pair between convolution and addition, because it would prevent
the fusion. Everything else stays float16, with its casts before the pairs: matrix products, the tail, and the
convolutions of masks and channel attention, which have 1/40 of the weights and determine the region of each part.

Quantisation is symmetric, as TensorRT requires: int8 around zero, one scale per tensor for activations and one per
channel for weights, no zero points, biases in float16.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

PARTS = "network.parts."  # prefix of the weights of masks and channel attention
STEPS = 127
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)

Weights = Mapping[str, npt.NDArray[np.float32]]
Ranges = Mapping[str, float]  # tensor -> its largest magnitude


def insert_qdq_pairs(
    half: onnx.ModelProto, weights: Weights, ranges: Ranges, chosen: Collection[str]
) -> onnx.ModelProto:
    """The float16 graph with Q/DQ pairs at the convolutions and additions named in `chosen`.

    `weights` and `ranges` are those of the float32 graph that `half` was made from, by the same names.
    """
    model = onnx.ModelProto()
    model.CopyFrom(half)
    graph = model.graph
    inserter = _PairInserter(weights, ranges)
    residual = _residual_inputs(graph.node)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in chosen and node.op_type == "Conv" and not node.input[1].startswith(PARTS):
            node.input[0] = inserter.activation(node.input[0], nodes)
            node.input[1] = inserter.weight(node.input[1], nodes)
        elif node.name in chosen and node.name in residual:
            position = residual[node.name]
            node.input[position] = inserter.activation(node.input[position], nodes)
        nodes.append(node)
    graph.ClearField("node")
    graph.node.extend(nodes)
    kept = [weight for weight in graph.initializer if weight.name not in inserter.replaced]
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *inserter.constants])
    graph.ClearField("value_info")
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _residual_inputs(nodes: Collection[onnx.NodeProto]) -> dict[str, int]:
    """Additions that can be fused with a convolution, by name, and the index of their other input."""
    uses = Counter(name for node in nodes for name in node.input)
    fusable = {node.output[0] for node in nodes if node.op_type == "Conv" and uses[node.output[0]] == 1}
    found = {}
    for node in nodes:
        if node.op_type == "Add" and fusable.intersection(node.input):
            found[node.name] = 1 if node.input[0] in fusable else 0
    return found


class _PairInserter:
    """Creates one Q/DQ pair per tensor, even if several nodes read it."""

    def __init__(self, weights: Weights, ranges: Ranges) -> None:
        self.constants: list[onnx.TensorProto] = []
        self.replaced: set[str] = set()
        self._weights, self._ranges = weights, ranges
        self._made: dict[str, str] = {}

    def activation(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """The dequantised tensor; its pair is added to `nodes` unless it exists."""
        if name not in self._made:
            magnitude = self._ranges[name.removesuffix(".float16")]  # a cast has the range of the tensor it reads
            scale = self._constant(f"{name}.scale", _scales(np.array(magnitude)))
            zero = self._constant(f"{name}.zero", np.array(0, np.int8))
            eight = f"{name}.int8"
            nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [eight], f"quantise.{name}"))
            self._made[name] = self._dequantise(name, [eight, scale, zero], nodes)
        return self._made[name]

    def weight(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """The dequantised weight (out, in, h, w) of a convolution; its int8 values replace the original."""
        if name not in self._made:
            weight = self._weights[name]
            scale = _scales(np.abs(weight).max((1, 2, 3)))
            steps = np.rint(weight / scale.astype(np.float32)[:, None, None, None]).clip(-STEPS, STEPS)
            self.replaced.add(name)
            inputs = [
                self._constant(f"{name}.int8", steps.astype(np.int8)),
                self._constant(f"{name}.scale", scale),
                self._constant(f"{name}.zero", np.zeros(len(scale), np.int8)),
            ]
            self._made[name] = self._dequantise(name, inputs, nodes, axis=0)
        return self._made[name]

    def _dequantise(self, name: str, inputs: list[str], nodes: list[onnx.NodeProto], axis: int | None = None) -> str:
        output = f"{name}.dequantised"
        nodes.append(helper.make_node("DequantizeLinear", inputs, [output], f"dequantise.{name}", axis=axis))
        return output

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name


def _scales(magnitude: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """Quantisation step in float16, like the tensors; weights are quantised with the rounded value."""
    return np.maximum(magnitude / STEPS, SMALLEST).astype(np.float16)
