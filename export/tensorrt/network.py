"""Parses a typed ONNX graph into a TensorRT network; errors name the nodes."""

from dataclasses import dataclass
from typing import Any

from bundle import InputSpec
from export.errors import GraphError
from export.onnx.graph import INPUT, OUTPUT
from export.tensorrt.library import Library, join_messages

Described = list[list[tuple[str, Any, tuple[int, ...]]]]  # inputs and outputs: name, type, shape
ADVICE = "export the checkpoint again with `pan-export onnx`, or use another version of the library"


@dataclass(frozen=True, slots=True)
class ParsedNetwork:
    """A network, with its builder and parser: the parser owns the weights and must live as long."""

    builder: Any
    network: Any
    parser: Any


def parse(library: Library, serialised: bytes, spec: InputSpec, dim: int) -> ParsedNetwork:
    """Parse a typed ONNX file. Raises GraphError with node, operator and reason of each parser error; BuildError."""
    trt = library.trt
    with library.capture_log() as log:
        builder = library.create("Builder")
        # the default in TensorRT 11 and TensorRT-RTX; TensorRT 10 needs the flag
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, library.log)
        if not parser.parse(serialised):
            found = "; ".join(_format(parser, parser.get_error(index)) for index in range(parser.num_errors))
            raise GraphError(f"{library.title} cannot parse the graph: {found or log.error_text()}; {ADVICE}")
    _check_signature(library, network, spec, dim)
    return ParsedNetwork(builder, network, parser)


def _format(parser: Any, error: Any) -> str:
    """`node 60 'node_sigmoid' (Det): unsupported node: no such operator here`."""
    reason = join_messages([error.desc()])
    kind = error.code().name.lower().replace("_", " ")
    operator = error.node_operator()
    if not operator:  # an error of the whole file
        return f"{kind}: {reason}"
    if not parser.supports_operator(operator):
        reason = "the library has no such operator"
    functions = "".join(f", in function {name}" for name in error.local_function_stack())
    return f"node {error.node()} {error.node_name()!r} ({operator}{functions}): {kind}: {reason}"


def _check_signature(library: Library, network: Any, spec: InputSpec, dim: int) -> None:
    """Check inputs and outputs: the parser accepts an empty file, and wrong names fail only much later."""
    types = library.trt.DataType
    found: Described = [
        [(tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in tensors]
        for tensors in (
            [network.get_input(index) for index in range(network.num_inputs)],
            [network.get_output(index) for index in range(network.num_outputs)],
        )
    ]
    expected: Described = [[(INPUT, types.UINT8, (-1, spec.height, spec.width, 3))], [(OUTPUT, types.FLOAT, (-1, dim))]]
    if found != expected:
        described = [
            [f"{name} {dtype.name.lower()} {shape}" for name, dtype, shape in tensors]
            for tensors in (*found, *expected)
        ]
        raise GraphError(
            "the graph's inputs and outputs are {} and {}, expected {} and {}; ".format(*described) + ADVICE
        )
