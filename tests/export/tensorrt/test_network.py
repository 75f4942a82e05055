"""Error messages for graphs that cannot be parsed."""

import onnx
import pytest

from export.errors import GraphError
from export.tensorrt.library import Library
from export.tensorrt.network import parse
from tests.export.conftest import SPEC, Traced
from tests.export.tensorrt.conftest import read


def changed(model: onnx.ModelProto, operator: str, into: str) -> tuple[onnx.ModelProto, onnx.NodeProto]:
    """A copy in which the first node of an operator has another operator, and that node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = next(node for node in copy.graph.node if node.op_type == operator)
    node.op_type = into
    return copy, node


def test_a_parser_error_names_node_operator_and_reason(rtx: Library, pan_c: Traced) -> None:
    turned = onnx.ModelProto()
    turned.CopyFrom(pan_c.model)
    cast = next(node for node in turned.graph.node if "images" in node.input)
    cast.input[0] = "turned"
    nodes = [onnx.helper.make_node("Transpose", ["images"], ["turned"], "turn", perm=[0, 1, 2, 3]), *turned.graph.node]
    turned.graph.ClearField("node")
    turned.graph.node.extend(nodes)
    with pytest.raises(GraphError) as raised:
        read(rtx, turned)  # transposes uint8
    message = str(raised.value)
    assert "'turn' (Transpose): invalid node" in message
    assert "first input has type UInt8 but must have type Float" in message
    assert "\n" not in message
    assert "cuda" not in message.lower()  # the missing driver is not the reason
    assert "/_src/" not in message


@pytest.mark.parametrize("operator", ["Frobnicate", "Det"])
def test_an_unknown_operator_is_named(rtx: Library, typed: dict[str, onnx.ModelProto], operator: str) -> None:
    model, node = changed(typed["float32"], "Sigmoid", operator)
    with pytest.raises(GraphError, match=rf"node \d+ '{node.name}' \({operator}\): .*the library has no such operator"):
        read(rtx, model)


def test_a_graph_with_another_signature_is_refused(rtx: Library, typed: dict[str, onnx.ModelProto]) -> None:
    whole = typed["float32"].SerializeToString()
    with pytest.raises(GraphError, match=r"model deserialize failed.*Failed to parse the ONNX model"):
        parse(rtx, whole[: len(whole) // 2], SPEC, 1536)
    with pytest.raises(GraphError, match=r"inputs and outputs are \[\] and \[\], expected \['images uint8"):
        parse(rtx, b"", SPEC, 1536)
    with pytest.raises(GraphError, match=r"embeddings float \(-1, 1536\).* expected .*\(-1, 768\)"):
        read(rtx, typed["float32"], dim=768)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(typed["float32"])
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "pixels"
    with pytest.raises(GraphError, match="pixels uint8"):  # its profile would name a missing input
        read(rtx, renamed)
