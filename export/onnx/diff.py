"""Compares two graphs of one network tensor by tensor, and finds the first tensor that differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto

from bundle import ImageArray, InputSpec
from bundle.loader import MANIFEST
from export.errors import GraphError
from export.onnx.graph import INPUT, onnx_graph
from training.checkpoint import load_checkpoint

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
BATCH = 4  # crops whose tensors are in memory at once


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """The comparison of one tensor that both graphs compute."""

    tensor: str
    operator: str  # that computes it in A
    cosine: float  # minimum over the images
    largest: float  # maximum magnitude in A, which float16 or an INT8 range must hold


def read_graph(path: Path) -> onnx.ModelProto:
    """An .onnx file, the float32 file of a bundle, or a checkpoint, which is traced.

    Raises GraphError or CheckpointError.
    """
    if (path / MANIFEST).is_file():
        path = path / "model.float32.onnx"
    if path.suffix != ".onnx":
        network, card = load_checkpoint(path)
        return onnx_graph(network, card.input, {})
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's DecodeError, OSError and others
        raise GraphError(
            f"{path} cannot be read as ONNX ({error}); give an .onnx file, a bundle or a checkpoint"
        ) from None


def input_spec(model: onnx.ModelProto) -> InputSpec:
    """The crop size that a graph takes. Raises GraphError if its input is not a batch of crops."""
    (image,) = model.graph.input
    shape = [axis.dim_value for axis in image.type.tensor_type.shape.dim]
    if image.name != INPUT or len(shape) != 4 or shape[3] != 3:
        raise GraphError(f"the graph takes {image.name} {shape}, not crops; it was not written by pan-export")
    return InputSpec(height=shape[1], width=shape[2])


def compare_graphs(a: onnx.ModelProto, b: onnx.ModelProto, images_NHW3: ImageArray) -> list[TensorDifference]:
    """Compare the float tensors that both graphs name, in A's order. Raises GraphError if there are none."""
    names_b = set(_float_tensors(b))
    operators = {output: node.op_type for node in a.graph.node for output in node.output}
    shared = [name for name in _float_tensors(a) if name in names_b and name in operators]
    if not shared:
        raise GraphError("the two graphs share no tensor name; they are not graphs of one network")
    values_a, values_b = _values(a, shared, images_NHW3), _values(b, shared, images_NHW3)
    return [
        TensorDifference(name, operators[name], _cosine(x, y), float(np.abs(x).max()))
        for name, x, y in zip(shared, values_a, values_b, strict=True)
    ]


def first_difference(differences: list[TensorDifference], threshold: float) -> TensorDifference | None:
    """The first tensor with a cosine below the threshold."""
    return next((difference for difference in differences if difference.cosine < threshold), None)


def max_magnitude(model: onnx.ModelProto, names: Sequence[str], images_NHW3: ImageArray) -> tuple[str, float]:
    """The tensor of `names` with the largest magnitude over the crops, and that magnitude."""
    reached = np.zeros(len(names))
    for start in range(0, len(images_NHW3), BATCH):
        values = _values(model, names, images_NHW3[start : start + BATCH])
        reached = np.maximum(reached, [np.abs(value).max(initial=0) for value in values])
    return names[int(reached.argmax())], float(reached.max())


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    return [output for node in graph.node for output in node.output if types.get(output) in FLOATS]


def _values(model: onnx.ModelProto, names: Sequence[str], images_NHW3: ImageArray) -> list[npt.NDArray[np.float64]]:
    """The named tensors for the images, computed without graph optimisations."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(onnx.shape_inference.infer_shapes(model))
    types = {value.name: value for value in (*exposed.graph.value_info, *exposed.graph.output)}
    exposed.graph.ClearField("output")
    exposed.graph.output.extend(types[name] for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exposed.onnx"
        onnx.save_model(exposed, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value, np.float64) for value in session.run(list(names), {INPUT: images_NHW3})]


def _cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Minimum cosine over the first axis; two rows of zeros count as equal."""
    rows_a, rows_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(rows_a, axis=1) * np.linalg.norm(rows_b, axis=1)
    same = (rows_a == rows_b).all(1)
    return float(np.where(same, 1.0, (rows_a * rows_b).sum(1) / np.maximum(norms, 1e-300)).min())
