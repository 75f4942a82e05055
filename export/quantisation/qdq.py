"""INT8: calibration of the graph, and graphs with Q/DQ pairs around chosen nodes.

Calibration runs once. A graph with another choice of nodes then takes seconds, so that
`export.quantisation.sensitivity` can search for the nodes that must stay in float.
"""

import contextlib
import io
import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from bundle import ImageArray
from export.onnx.float16 import to_float16
from export.onnx.graph import INPUT
from export.quantisation.tensorrt_qdq import insert_qdq_pairs

OPERATORS = ("Conv", "Relu", "Add", "MaxPool")
CALIBRATION_BATCH = 8
PERCENTILE = 99.999  # with the full range, a few outliers would use up the 256 steps

Scheme = Literal["cpu", "tensorrt"]


@dataclass(frozen=True, slots=True)
class CalibratedGraph:
    """A float32 graph with the calibrated range of every tensor that INT8 nodes read or write."""

    model: onnx.ModelProto
    ranges: TensorsData

    @property
    def blocks(self) -> list[list[str]]:
        """Names of the nodes that can run in INT8, by residual block. The stem belongs to the first block; the last
        one is everything after the backbone.
        """
        nodes = list(self.model.graph.node)
        first = next(index for index, node in enumerate(nodes) if node.op_type == "Conv")
        sums = {node.output[0] for node in nodes if node.op_type == "Add"}
        blocks: list[list[str]] = [[]]
        for node in nodes[first:]:
            if node.op_type in OPERATORS:
                blocks[-1].append(node.name)
            if node.op_type == "Relu" and node.input[0] in sums:
                blocks.append([])
        return [block for block in blocks if block]

    def small_blocks(self, weights_per_convolution: int) -> list[list[str]]:
        """The blocks whose convolutions have fewer weights than this on average, or that have no convolution."""
        sizes = {weight.name: math.prod(weight.dims) for weight in self.model.graph.initializer}
        weights: dict[str, int] = {
            node.name: sizes[node.input[1]] for node in self.model.graph.node if node.op_type == "Conv"
        }

        def small(block: list[str]) -> bool:
            convolutions = [weights[name] for name in block if name in weights]
            return bool(sum(convolutions) < weights_per_convolution * max(1, len(convolutions)))

        return [block for block in self.blocks if small(block)]


def calibrate(model: onnx.ModelProto, images_NHW3: ImageArray) -> CalibratedGraph:
    """Run crops (N, H, W, 3) through the graph and measure the range of each tensor."""
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "float32.onnx"
        onnx.save_model(model, path)
        calibrator = create_calibrator(
            path,
            list(OPERATORS),
            str(path.with_name("with-outputs.onnx")),
            CalibrationMethod.Percentile,
            extra_options={"percentile": PERCENTILE, "symmetric": False},
        )
        calibrator.collect_data(_Batches(images_NHW3))
        return CalibratedGraph(onnx.shape_inference.infer_shapes(model), calibrator.compute_data())


def quantise(calibrated: CalibratedGraph, keep_float: Collection[str] = (), scheme: Scheme = "cpu") -> onnx.ModelProto:
    """The graph with its `OPERATORS` in INT8, except the nodes named in `keep_float`. Weights: int8, per channel.

    "cpu": activations uint8, 2.5 times as fast as int8 in ONNX Runtime; everything else is float32.
    "tensorrt": symmetric, on what its fused kernels read (see `export.quantisation.tensorrt_qdq`); everything else is
    float16. Matrix products are never quantised.
    """
    chosen = {name for block in calibrated.blocks for name in block} - set(keep_float)
    if scheme == "tensorrt":
        return _for_tensorrt(calibrated, chosen)
    model = onnx.ModelProto()
    model.CopyFrom(calibrated.model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=calibrated.ranges,
        nodes_to_quantize=[node.name for node in model.graph.node if node.name in chosen],
        nodes_to_exclude=[],
        op_types_to_quantize=list(OPERATORS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    with _quiet():
        quantizer.quantize_model()
    quantised: onnx.ModelProto = quantizer.model.model
    return quantised


def _for_tensorrt(calibrated: CalibratedGraph, chosen: Collection[str]) -> onnx.ModelProto:
    weights = {weight.name: numpy_helper.to_array(weight) for weight in calibrated.model.graph.initializer}
    limits = {name: calibrated.ranges[name].range_value for name in calibrated.ranges}
    ranges = {name: max(abs(float(low)), abs(float(high))) for name, (low, high) in limits.items()}
    return insert_qdq_pairs(to_float16(calibrated.model), weights, ranges, chosen)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images_NHW3: ImageArray) -> None:
        self._batches: Iterator[ImageArray] = (
            images_NHW3[start : start + CALIBRATION_BATCH] for start in range(0, len(images_NHW3), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, ImageArray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser's output, such as warnings about channels with weights near zero; results are measured."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
