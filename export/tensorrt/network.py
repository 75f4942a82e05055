"""ONNX -> a TensorRT network whose every tensor has the type the graph gives it; or the reason, node by node."""

from dataclasses import dataclass
from typing import Any

from bundle import InputSpec
from export.errors import GraphError
from export.onnx.graph import INPUT, OUTPUT
from export.tensorrt.library import Library, readable

Described = list[list[tuple[str, Any, tuple[int, ...]]]]  # inputs and outputs: name, type, shape
ADVICE = "export the checkpoint again with `pan-export onnx`, or use another version of the library"


@dataclass(frozen=True, slots=True)
class ParsedNetwork:
    """A network and what must live as long: its builder, and the parser that holds its weights."""

    builder: Any
    network: Any
    parser: Any


def parse(library: Library, serialised: bytes, spec: InputSpec, dim: int) -> ParsedNetwork:
    """Read a typed ONNX file. Raises GraphError with every error of the parser: node, operator and why; BuildError."""
    trt = library.trt
    with library.capture_log() as log:
        builder = library.create("Builder")
        # always so in TensorRT 11 and TensorRT-RTX; TensorRT 10 must be told
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, library.log)
        if not parser.parse(serialised):
            found = "; ".join(_format(parser, parser.get_error(index)) for index in range(parser.num_errors))
            raise GraphError(f"{library.title} cannot take the graph: {found or log.error_text()}; {ADVICE}")
    _check_signature(library, network, spec, dim)
    return ParsedNetwork(builder, network, parser)


def _format(parser: Any, error: Any) -> str:
    """`node 60 'node_sigmoid' (Det): unsupported node: no such operator here`."""
    reason = readable([error.desc()])
    kind = error.code().name.lower().replace("_", " ")
    operator = error.node_operator()
    if not operator:  # the file as a whole
        return f"{kind}: {reason}"
    if not parser.supports_operator(operator):
        reason = "the library has no such operator"
    functions = "".join(f", in function {name}" for name in error.local_function_stack())
    return f"node {error.node()} {error.node_name()!r} ({operator}{functions}): {kind}: {reason}"


def _check_signature(library: Library, network: Any, spec: InputSpec, dim: int) -> None:
    """The parser takes an empty file without an error, and names a profile does not meet fail much later."""
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
            "the graph's inputs and outputs are {} and {}, the bundle's are {} and {}; ".format(*described) + ADVICE
        )
