"""float16 and INT8 graphs: types, accuracy, and blocks that stay in float to pass the gates."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from bundle import ImageArray
from export.bundles.targets import parse_target
from export.engines import onnx_embedder, openvino_embedder
from export.errors import ExportError, GraphError, ParityError
from export.onnx.float16 import check_float16_range, to_float16
from export.parity.agreement import Reference, check_gates
from export.parity.gates import DEFAULTS, Gates
from export.parity.samples import Samples, synthetic_samples
from export.quantisation.qdq import CalibratedGraph, calibrate, quantise
from export.quantisation.sensitivity import quantise_within_gates
from tests.export.conftest import SPEC, Traced, compare
from training.embed import Embed, torch_embedder


@pytest.fixture(scope="module")
def people() -> Samples:
    """Crops that are not used for calibration."""
    return synthetic_samples(SPEC, 16)


@pytest.fixture(scope="module")
def calibrated(pan_c: Traced) -> CalibratedGraph:
    """Ranges of PAN_c on other people."""
    return calibrate(pan_c.model, synthetic_samples(SPEC, 16, seed=1).images_NHW3)


def opened(model: onnx.ModelProto, folder: Path) -> Embed:
    """The engine of a graph."""
    path = folder / "model.onnx"
    onnx.save_model(model, path)
    return onnx_embedder(path, threads=1)


def weight_types(model: onnx.ModelProto) -> Counter[int]:
    """The number of weights by type."""
    sizes: Counter[int] = Counter()
    for weight in model.graph.initializer:
        sizes[weight.data_type] += int(np.prod(weight.dims))
    return sizes


def test_float16_halves_the_size_with_two_casts(pan_c: Traced, people: Samples, tmp_path: Path) -> None:
    half = to_float16(pan_c.model)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3  # uint8 to float32 is the first
    assert weight_types(half)[TensorProto.FLOAT16] > 0.99 * weight_types(pan_c.model)[TensorProto.FLOAT]
    assert half.ByteSize() < 0.51 * pan_c.model.ByteSize()
    kinds = {node.op_type: node for node in half.graph.node}
    float32 = {value.name for value in half.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    assert {kinds["BatchNormalization"].output[0], kinds["ReduceL2"].output[0]} <= float32
    agreement = compare(torch_embedder(pan_c.network, SPEC), opened(half, tmp_path), people.images_NHW3)
    check_gates(agreement, DEFAULTS["float16"])
    assert agreement.cosine_min < 1 - 1e-8  # equal results would mean that nothing was converted


def test_a_weight_above_the_float16_maximum_is_refused(pan_c: Traced) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(pan_c.model)
    weight = next(weight for weight in model.graph.initializer if weight.name.endswith("conv1.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e8), weight.name))
    with pytest.raises(GraphError, match="more than float16 holds"):
        to_float16(model)


def test_activations_above_the_float16_maximum_are_found_on_a_cpu(pan_c: Traced, people: Samples) -> None:
    """The weights fit into float16, a product of them does not."""
    check_float16_range(pan_c.model, to_float16(pan_c.model), people.images_NHW3)
    loud = onnx.ModelProto()
    loud.CopyFrom(pan_c.model)
    weight = next(weight for weight in loud.graph.initializer if weight.name == "network.pams.0.psi.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(3e4), weight.name))
    with pytest.raises(ParityError, match=r"float16 may overflow: matmul_\d+ reaches .* on 16 crops"):
        check_float16_range(loud, to_float16(loud), people.images_NHW3)


def test_pooling_does_not_overflow_float16(pan_c: Traced) -> None:
    """A sum over all positions could; the division by their number comes first."""
    nodes = list(pan_c.model.graph.node)
    producer = {output: node for node in nodes for output in node.output}
    consumers = Counter(node.op_type for node in nodes if any(_is_matmul(producer, name) for name in node.input))
    assert consumers["Div"] == 0


def _is_matmul(producer: dict[str, onnx.NodeProto], name: str) -> bool:
    return name in producer and producer[name].op_type == "MatMul"


def test_int8_runs_the_backbone_on_eight_bits(calibrated: CalibratedGraph, people: Samples, tmp_path: Path) -> None:
    model = quantise(calibrated)
    backbone = sum(
        int(np.prod(weight.dims))
        for weight in calibrated.model.graph.initializer
        if weight.name.startswith("network.backbone.") and len(weight.dims) == 4
    )
    types = weight_types(model)
    assert types[TensorProto.INT8] >= backbone
    assert any(
        weight.data_type == TensorProto.UINT8 for weight in model.graph.initializer
    )  # zero points of activations
    per_channel = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.attribute]
    assert len(per_channel) >= 20  # a scale a channel for every convolution of a ResNet-18
    reference, engine = opened(calibrated.model, tmp_path), opened(model, tmp_path)
    check_gates(compare(reference, engine, people.images_NHW3), Gates(0.95, 0.9999, 0.5))


def test_int8_for_tensorrt_is_symmetric(calibrated: CalibratedGraph) -> None:
    model = quantise(calibrated, scheme="tensorrt")
    types = {weight.name: weight for weight in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 40
    for node in pairs:
        zero_point = types[node.input[2]]
        assert zero_point.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero_point).any()


def test_the_most_sensitive_blocks_stay_in_float(calibrated: CalibratedGraph, people: Samples, tmp_path: Path) -> None:
    """A gate that the full INT8 graph fails is met with as few float blocks as possible."""
    assert len(calibrated.blocks) == 9  # ResNet-18: two to a stage, and the head

    def open_model(model: onnx.ModelProto) -> Embed:
        return opened(model, tmp_path)

    reference = Reference(open_model(calibrated.model), people, (16,))
    every = reference.compare(open_model(quantise(calibrated))).cosine_min
    tight = Gates((1 + 3 * every) / 4, 0.9999, 100.0)
    found = quantise_within_gates(calibrated, reference, tight, open_model)
    assert 1 <= found.float_blocks <= 4
    assert found.agreement.cosine_min >= tight.min_cosine
    loose = quantise_within_gates(calibrated, reference, Gates(every - 1e-3, 0.9999, 100.0), open_model)
    assert loose.float_blocks == 0
    with pytest.raises(ParityError, match="4 most sensitive of 9 residual blocks"):
        quantise_within_gates(calibrated, reference, Gates(1 - 1e-9, 0.9999, 100.0), open_model)


def test_openvino_computes_in_the_requested_precision(pan_c: Traced, people: Samples) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    torch_engine = torch_embedder(pan_c.network, SPEC)
    exact = compare(torch_engine, openvino_embedder(pan_c.path, "float32", 1), people.images_NHW3)
    check_gates(exact, DEFAULTS["float32"])

    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    rough = compare(torch_engine, openvino_embedder(pan_c.path, "bfloat16", 1), people.images_NHW3)
    check_gates(rough, DEFAULTS["bfloat16"])
    assert 1 - rough.cosine_mean > 100 * (1 - exact.cosine_mean)


def test_short_precisions_are_accepted_and_a_near_miss_names_the_engine() -> None:
    with pytest.raises(ExportError, match=r"onnx:bfloat16 is unknown; did you mean \w+:b?float16\?"):
        parse_target("onnx:bfloat16")
    with pytest.raises(ExportError, match="added to a finished bundle by `pan-export tensorrt`"):
        parse_target("tensorrt:fp16")
    assert parse_target("onnx:fp16") == parse_target("onnx:float16")
    assert parse_target("openvino:bf16") == parse_target("openvino:bfloat16")


def test_openvino_vectors_are_not_overwritten_by_the_next_call(pan_c: Traced) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    engine = openvino_embedder(pan_c.path, "float32", 1)
    images: ImageArray = synthetic_samples(SPEC, 2).images_NHW3
    first = engine(images[:1])
    kept = first.copy()
    engine(images[1:])
    np.testing.assert_array_equal(first, kept)


def test_int8_for_tensorrt_rounds_weights_to_half_a_step_and_skips_float_blocks(
    calibrated: CalibratedGraph,
) -> None:
    model = quantise(calibrated, scheme="tensorrt")
    exact = {weight.name: numpy_helper.to_array(weight) for weight in calibrated.model.graph.initializer}
    held = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    eight = [name for name in exact if f"{name}.int8" in held]
    assert {name for name in exact if name.startswith("network.backbone.") and exact[name].ndim == 4} == set(eight)
    for name in eight:
        step = held[f"{name}.scale"].astype(np.float64)[:, None, None, None]
        assert (np.abs(held[f"{name}.int8"] * step - exact[name]) <= 0.51 * step).all()
        assert name not in held
    block = set(calibrated.blocks[1])
    kept = quantise(calibrated, block, "tensorrt")
    quantised = {output for node in kept.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    for node in kept.graph.node:
        assert not (node.name in block and quantised.intersection(node.input))
    assert len(quantised) < sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
