"""The typed graphs that are compiled."""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from export.tensorrt.library import Library
from tests.export.tensorrt.conftest import read


def test_the_only_operator_on_uint8_pixels_is_a_cast(typed: dict[str, onnx.ModelProto]) -> None:
    """TensorRT refuses any other operator on uint8."""
    for model in typed.values():
        assert [node.op_type for node in model.graph.node if "images" in node.input] == ["Cast"]


def test_convolutions_have_the_type_of_the_precision(rtx: Library, typed: dict[str, onnx.ModelProto]) -> None:
    def convolutions(precision: str) -> tuple[set[str], set[str]]:
        """Types of their outputs, and kinds of the layers that produce their inputs."""
        network = read(rtx, typed[precision]).network
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        kinds = {layer.get_output(0).name: layer.type.name for layer in layers}
        found = [layer for layer in layers if layer.type.name == "CONVOLUTION"]
        assert len(found) > 20
        feeds = {kinds.get(layer.get_input(0).name, "") for layer in found}
        return {layer.get_output(0).dtype.name for layer in found}, feeds

    assert convolutions("float32")[0] == {"FLOAT"}
    assert convolutions("float16")[0] == {"HALF"}
    assert "DEQUANTIZE" in convolutions("int8")[1]
    assert "DEQUANTIZE" not in convolutions("float32")[1]


def test_int8_graph_dequantises_convolutions_and_residual_inputs_and_is_float16_elsewhere(
    rtx: Library, typed: dict[str, onnx.ModelProto]
) -> None:
    network = read(rtx, typed["int8"]).network
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    maker = {layer.get_output(0).name: layer for layer in layers}

    def givers(layer: Any) -> list[str]:
        return [maker[layer.get_input(index).name].type.name for index in range(layer.num_inputs)
                if layer.get_input(index) is not None and layer.get_input(index).name in maker]  # fmt: skip

    convolutions = [layer for layer in layers if layer.type.name == "CONVOLUTION"]
    eight = [layer for layer in convolutions if givers(layer) == ["DEQUANTIZE", "DEQUANTIZE"]]
    assert len(eight) == 21  # the backbone, a ResNet-18; the masks' convolutions are not among them
    for layer in (*convolutions, *(layer for layer in layers if layer.type.name == "MATRIX_MULTIPLY")):
        assert layer.get_output(0).dtype.name == "HALF"
    residual = [sorted(givers(layer)) for layer in layers
                if layer.type.name == "ELEMENTWISE" and len(layer.get_output(0).shape) == 4
                and "CONVOLUTION" in givers(layer)]  # fmt: skip
    assert residual == [["CONVOLUTION", "DEQUANTIZE"]] * 8


def test_int8_quantisation_is_symmetric_and_keeps_fusable_operators_adjacent(typed: dict[str, onnx.ModelProto]) -> None:
    constants = {weight.name: numpy_helper.to_array(weight) for weight in typed["int8"].graph.initializer}
    pairs = [node for node in typed["int8"].graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 20
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    givers = {output: node.op_type for node in typed["int8"].graph.node for output in node.output}
    fusable = [givers[node.input[0]] for node in typed["int8"].graph.node if node.op_type == "Relu"]
    assert set(fusable) == {"Conv", "Add"}  # with nothing between
