"""A network as one ONNX graph: uint8 pixels in, descriptors of unit length out, any batch size."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from bundle import InputSpec
from export.errors import GraphError
from training.model import PAN, Normalise

INPUT, OUTPUT = "images", "embeddings"
OPSET = 20


class PixelsIn(nn.Module):
    """The preprocessing of a graph: mean and standard deviation are applied here and nowhere else.

    Pixels are cast first, which is all that TensorRT does with uint8, and normalised as they lie, against one row of
    W x 3 factors: ONNX Runtime is slow where the factors of an innermost axis are only three.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        planes = Normalise(spec)
        for name in ("scale", "shift"):
            self.register_buffer(name, planes.get_buffer(name).view(1, 3).repeat(spec.width, 1))

    def forward(self, images_BHW3: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, normalised."""
        return (images_BHW3.float() * self.get_buffer("scale") + self.get_buffer("shift")).permute(0, 3, 1, 2)


class DeployedNetwork(nn.Module):
    """The network with its preprocessing."""

    def __init__(self, network: PAN, spec: InputSpec) -> None:
        super().__init__()
        self.pixels, self.network = PixelsIn(spec), network

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32 of unit length."""
        return self.network.describe(self.pixels(images))


def onnx_graph(network: PAN, spec: InputSpec, metadata: Mapping[str, str], opset: int = OPSET) -> onnx.ModelProto:
    """Trace the network (in eval mode) into a checked float32 graph with a dynamic batch and its weights inside.

    `metadata` goes into the file's properties, so that a stray file can be told. Raises GraphError.
    """
    model = trace(DeployedNetwork(network, spec), spec, [OUTPUT], metadata, opset)
    check_signature(model, spec, network.embedding_size)
    return model


def trace(
    module: nn.Module, spec: InputSpec, outputs: list[str], metadata: Mapping[str, str], opset: int
) -> onnx.ModelProto:
    """Any module over (B, H, W, 3) uint8 crops as a graph with a dynamic batch, valid by ONNX's own checker.

    Raises GraphError.
    """
    example = torch.zeros(2, spec.height, spec.width, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            input_names=[INPUT],
            output_names=outputs,
            verbose=False,
        )
    assert program is not None  # only the dynamo=False exporter, which writes a file, returns None
    model: onnx.ModelProto = program.model_proto
    _clear_metadata(model)
    onnx.helper.set_model_props(model, dict(metadata))
    check_graph(model, opset)
    return model


def check_graph(model: onnx.ModelProto, opset: int) -> None:
    """Hold a graph to ONNX's own checker and to the opset. Raises GraphError."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"the exported graph is not valid ONNX: {error}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": opset}:
        raise GraphError(f"the exporter wrote opsets {opsets} where opset {opset} was asked; choose another --opset")


def check_signature(model: onnx.ModelProto, spec: InputSpec, dim: int) -> None:
    """Hold a graph to the bundle's contract: names, shapes and types of input and output.

    Raises GraphError naming what differs.
    """
    signature = [[_describe(value) for value in values] for values in (model.graph.input, model.graph.output)]
    expected = [
        [(INPUT, onnx.TensorProto.UINT8, ("batch", spec.height, spec.width, 3))],
        [(OUTPUT, onnx.TensorProto.FLOAT, ("batch", dim))],
    ]
    if signature != expected:
        raise GraphError(f"the exported graph has inputs and outputs {signature}, expected {expected}")


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[str | int, ...]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)


def _clear_metadata(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on every node and value: they hold stack traces with paths of this machine."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of the absence of torchvision and of its own deprecations; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
