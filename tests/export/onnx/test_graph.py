"""The contract of the ONNX file, for one variant of each set of operators."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.shape_inference import infer_shapes

from export.engines import onnx_embedder
from export.errors import GraphError
from export.onnx.float16 import check_float16_range, to_float16
from export.onnx.graph import INPUT, OUTPUT, check_graph, check_signature
from export.parity.agreement import BATCH_SIZES, check_gates
from export.parity.gates import DEFAULTS
from export.parity.samples import read_samples, synthetic_samples
from tests.export.conftest import SPEC, Traced, compare, trace
from training.embed import torch_embedder
from training.model import VARIANTS, BackboneConfig, NetworkConfig

DATA = Path(os.environ.get("PAN_REID_DATA", Path(__file__).parents[4] / "shared" / "data")) / "market751"


def construction(config: NetworkConfig) -> tuple[object, ...]:
    """The settings that determine a network's operators; the others only change sizes."""
    return config.fusion, config.non_local, config.stripes is None, config.embedding is None


# one variant of each construction; PAN_c has tests of its own
OTHERS = {construction(config): name for name, config in VARIANTS.items()}
del OTHERS[construction(VARIANTS["pan_c"])]


@pytest.fixture(scope="module", params=sorted(OTHERS.values()))
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """One variant of each construction."""
    return trace(request.param, tmp_path_factory.mktemp("graph"))


def require_small_transposes(traced: Traced) -> None:
    """Only masks, compatibility maps and part vectors are transposed: each is smaller than any block's output."""
    with torch.inference_mode():
        blocks = traced.network.backbone(torch.zeros(1, 3, SPEC.height, SPEC.width))
    smallest = min(block.numel() for block in blocks)
    graph = infer_shapes(traced.model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]  # the batch counts as 1
        for value in (*graph.value_info, *graph.input)
    }
    transposed = [node.input[0] for node in graph.node if node.op_type == "Transpose"]
    pixels = [name for name in transposed if shapes[name] == [1, SPEC.height, SPEC.width, 3]]
    assert len(pixels) == 1
    for name in set(transposed) - set(pixels):
        assert np.prod(shapes[name]) < smallest, f"{name} {shapes[name]} is a feature map"


def test_every_set_of_operators_passes_the_gate(traced: Traced) -> None:
    people = synthetic_samples(SPEC, 9).images_NHW3
    agreement = compare(torch_embedder(traced.network, SPEC), onnx_embedder(traced.path, threads=1), people)
    check_gates(agreement, DEFAULTS["float32"])
    assert tuple(agreement.cosine) == BATCH_SIZES
    assert agreement.crop_similarity < 0.999
    require_small_transposes(traced)


def test_ibn_and_the_global_branch_pass_the_gate_in_float32_and_float16(tmp_path: Path) -> None:
    """One batch norm is left, the last one: another would end the float16 part of the graph."""
    traced = trace("pan_c", tmp_path, BackboneConfig(depth=18, width=0.5, ibn=True), gem=True)
    people = synthetic_samples(SPEC, 9).images_NHW3
    reference = torch_embedder(traced.network, SPEC)
    check_gates(compare(reference, onnx_embedder(traced.path, threads=1), people), DEFAULTS["float32"])
    operators = [node.op_type for node in traced.model.graph.node]
    assert operators.count("BatchNormalization") == 1
    assert operators.count("InstanceNormalization") == 6
    half = to_float16(traced.model)
    check_float16_range(traced.model, half, people)
    onnx.save(half, tmp_path / "half.onnx")
    check_gates(compare(reference, onnx_embedder(tmp_path / "half.onnx", threads=1), people), DEFAULTS["float16"])


def test_pan_c_passes_the_gate_at_other_batch_sizes_than_at_export(pan_c: Traced) -> None:
    people = synthetic_samples(SPEC, 35).images_NHW3
    engine = onnx_embedder(pan_c.path, threads=1)
    agreement = compare(torch_embedder(pan_c.network, SPEC), engine, people, (1, 2, 3, 7, 32, 33))
    check_gates(agreement, DEFAULTS["float32"])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real crops at {DATA}; set PAN_REID_DATA")
def test_pan_c_passes_the_gate_on_real_crops(pan_c: Traced) -> None:
    samples = read_samples(DATA, SPEC, 48)
    agreement = compare(torch_embedder(pan_c.network, SPEC), onnx_embedder(pan_c.path, threads=1), samples.images_NHW3)
    check_gates(agreement, DEFAULTS["float32"])
    assert (samples.name, agreement.images) == ("market751", 48)


def test_signature_and_opset(pan_c: Traced) -> None:
    session = onnxruntime.InferenceSession(str(pan_c.path), providers=["CPUExecutionProvider"])
    (images,), (embeddings,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == (INPUT, "tensor(uint8)", ["batch", 128, 64, 3])
    assert (embeddings.name, embeddings.type, embeddings.shape) == (OUTPUT, "tensor(float)", ["batch", 1536])
    assert [(entry.domain, entry.version) for entry in pan_c.model.opset_import] == [("", 20)]


def test_the_graph_is_one_file_with_its_identity_and_no_local_paths(pan_c: Traced) -> None:
    assert [file.name for file in pan_c.path.parent.iterdir()] == [pan_c.path.name]
    model = onnx.load(pan_c.path, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["variant"] == "pan_c"
    assert len(properties["fingerprint"]) == 64
    assert str(Path.home()).encode() not in pan_c.path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in pan_c.path.read_bytes()


def test_pixels_are_normalised_once(pan_c: Traced) -> None:
    """Compared with the formula in float64, and unlike no or double normalisation."""
    pixels = synthetic_samples(SPEC, 4).images_NHW3
    pixels[0] = (255, 0, 128)
    once = (pixels / 255.0 - SPEC.mean) / SPEC.std
    actual = onnx_embedder(pan_c.path, threads=1)(pixels)

    def expected(images_BHW3: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return pan_c.network.describe(torch.from_numpy(images_BHW3).permute(0, 3, 1, 2).float()).numpy()

    np.testing.assert_allclose(actual, expected(once), atol=1e-5)
    for wrong in (pixels / 255.0, (once - SPEC.mean) / SPEC.std):
        assert (actual * expected(wrong)).sum(1).min() < 0.999


def test_vectors_have_unit_length_also_for_extreme_images(pan_c: Traced) -> None:
    extremes = np.stack([np.full((128, 64, 3), value, np.uint8) for value in (0, 1, 255)])
    norms = np.linalg.norm(onnx_embedder(pan_c.path, threads=1)(extremes), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


def test_no_feature_map_is_transposed(pan_c: Traced) -> None:
    require_small_transposes(pan_c)


def test_a_graph_that_breaks_the_contract_is_refused(pan_c: Traced) -> None:
    with pytest.raises(GraphError, match="not opset 21"):
        check_graph(pan_c.model, opset=21)
    with pytest.raises(GraphError, match="inputs and outputs"):
        check_signature(pan_c.model, SPEC, 512)
    broken = onnx.ModelProto()
    broken.CopyFrom(pan_c.model)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(GraphError, match="not valid ONNX"):
        check_graph(broken, opset=20)
