"""The typed float16 graph: every tensor has an explicit type, so TensorRT needs no flags and nothing is cast twice.

Two parts stay in float32: the preprocessing (pixels up to 255 are divided by small deviations), and everything from the
last batch norm on, whose squares and epsilon do not fit into float16. There is one cast to float16 and one back.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle import ImageArray
from export.errors import GraphError, ParityError
from export.onnx.diff import max_magnitude

FLOAT16_MAX = float(np.finfo(np.float16).max)
HEADROOM = 4  # other crops may reach larger values than the measured ones
TAIL = ("BatchNormalization", "ReduceL2", "LpNormalization")  # batch norms after convolutions are folded into them


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The typed float16 graph of a float32 one, with the same input and output.

    Raises GraphError if a weight does not fit.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    types = _float_tensors(model)
    exact = _float32_nodes(graph.node)
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    shared = {name for index in exact for name in graph.node[index].input if name in weights}
    produced_exactly = {name for index in exact for name in graph.node[index].output}

    nodes: list[onnx.NodeProto] = []
    casts: dict[tuple[str, int], str] = {}

    def cast(name: str, to: int) -> str:
        if (name, to) not in casts:
            casts[name, to] = f"{name}.{'float16' if to == TensorProto.FLOAT16 else 'float32'}"
            nodes.append(helper.make_node("Cast", [name], [casts[name, to]], name=f"cast.{casts[name, to]}", to=to))
        return casts[name, to]

    narrow: set[str] = set()
    for index, node in enumerate(graph.node):
        for position, name in enumerate(node.input):
            if index in exact:
                if name in types and name not in weights and name not in produced_exactly:
                    node.input[position] = cast(name, TensorProto.FLOAT)
            elif name in weights:
                narrow.add(name)
                node.input[position] = f"{name}.float16" if name in shared else name
            elif name in types and name in produced_exactly:
                node.input[position] = cast(name, TensorProto.FLOAT16)
        nodes.append(node)

    graph.ClearField("node")
    graph.node.extend(nodes)
    kept = [weight for weight in graph.initializer if weight.name not in narrow or weight.name in shared]
    halves = [
        _to_float16_weight(weights[name], f"{name}.float16" if name in shared else name) for name in sorted(narrow)
    ]
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *halves])
    graph.ClearField("value_info")  # the old types
    onnx.checker.check_model(half, full_check=True)
    return onnx.shape_inference.infer_shapes(half, strict_mode=True)


def check_float16_range(model: onnx.ModelProto, half: onnx.ModelProto, images_NHW3: ImageArray) -> None:
    """Check with the float32 graph that the tensors of the float16 graph do not overflow.

    On a CPU, ONNX Runtime computes float16 in float32 and hides an overflow. Raises ParityError if a tensor comes
    within a factor of `HEADROOM` of the largest float16 number.
    """
    narrow = [value.name for value in half.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16]
    made = {output for node in model.graph.node for output in node.output}
    name, magnitude = max_magnitude(model, [tensor for tensor in narrow if tensor in made], images_NHW3)
    if magnitude * HEADROOM > FLOAT16_MAX:
        raise ParityError(
            f"float16 may overflow: {name} reaches {magnitude:.3g} on {len(images_NHW3)} crops, and the maximum is "
            f"{FLOAT16_MAX:.0f}; use float32, or bfloat16 through OpenVINO"
        )


def _float32_nodes(nodes: Iterable[onnx.NodeProto]) -> set[int]:
    """Indices of the nodes that stay in float32: all before the first convolution, and the tail."""
    exact: set[int] = set()
    tail: set[str] = set()
    seen_conv = False
    for index, node in enumerate(nodes):
        seen_conv = seen_conv or node.op_type == "Conv"
        if not seen_conv:
            exact.add(index)
        elif node.op_type in TAIL or tail.intersection(node.input):
            exact.add(index)
            tail.update(node.output)
    return exact


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _to_float16_weight(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    array = numpy_helper.to_array(weight)
    if array.size and np.abs(array).max() > FLOAT16_MAX:
        raise GraphError(
            f"weight {weight.name} reaches {np.abs(array).max():.3g}, more than float16 holds ({FLOAT16_MAX:.0f}); "
            "export float32, or bfloat16 through OpenVINO"
        )
    return numpy_helper.from_array(array.astype(np.float16), name)
