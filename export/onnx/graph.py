"""Traces a network into one ONNX graph: uint8 pixels in, descriptors of unit length out, dynamic batch."""

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


class Preprocessing(nn.Module):
    """The preprocessing of a graph: mean and standard deviation are applied here and nowhere else.

    Pixels are cast first, because casting is the only operation that TensorRT supports on uint8. They are normalised in
    HWC layout with one row of W x 3 factors: ONNX Runtime is slow if the innermost axis has only three.
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
        self.pixels, self.network = Preprocessing(spec), network

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32 of unit length."""
        return self.network.describe(self.pixels(images))


def onnx_graph(network: PAN, spec: InputSpec, metadata: Mapping[str, str], opset: int = OPSET) -> onnx.ModelProto:
    """Trace the network (in eval mode) into a checked float32 graph with a dynamic batch and its weights inside.

    `metadata` is stored in the file's properties, so that a single file can be identified. Raises GraphError.
    """
    model = trace(DeployedNetwork(network, spec), spec, [OUTPUT], metadata, opset)
    check_signature(model, spec, network.embedding_size)
    return model


def trace(
    module: nn.Module, spec: InputSpec, outputs: list[str], metadata: Mapping[str, str], opset: int
) -> onnx.ModelProto:
    """Trace a module over (B, H, W, 3) uint8 crops into a graph with a dynamic batch, checked by ONNX's checker.

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
    """Check a graph with ONNX's checker, and its opset. Raises GraphError."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"the exported graph is not valid ONNX: {error}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": opset}:
        raise GraphError(f"the exporter wrote opsets {opsets}, not opset {opset}; choose another --opset")


def check_signature(model: onnx.ModelProto, spec: InputSpec, dim: int) -> None:
    """Check names, shapes and types of input and output against the bundle's contract.

    Raises GraphError with the difference.
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
    """Remove the exporter's metadata of nodes and values: it contains stack traces with local paths."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings about missing torchvision and deprecations; errors of the exporter are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
