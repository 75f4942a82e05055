"""A bundle built without torch. Its model is a random projection of mean colours, enough to distinguish test images."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle import (
    Calibration,
    EngineFile,
    Evaluation,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
    Parity,
    Provenance,
    fingerprint,
    load_bundle,
    save_manifest,
    sha256_file,
)
from service.inference.engine import Signature
from service.inference.engines.onnxruntime import OnnxRunner

HEIGHT, WIDTH, DIM = 64, 32, 64
SIGNATURE = Signature(HEIGHT, WIDTH, DIM)
_CELL = 8
_FEATURES = (HEIGHT // _CELL) * (WIDTH // _CELL) * 3


def projection(seed: int, dim: int = DIM) -> np.ndarray:
    """The (features, dim) weights of a model."""
    return np.random.default_rng(seed).normal(size=(_FEATURES, dim)).astype(np.float32)


def reference_embedding(crops: np.ndarray, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """The model's definition in float64: (B, H, W, 3) uint8 -> (B, dim) unit vectors."""
    count = len(crops)
    cells = crops.astype(np.float64).reshape(count, HEIGHT // _CELL, _CELL, WIDTH // _CELL, _CELL, 3).mean((2, 4))
    features = cells.transpose(0, 3, 1, 2).reshape(count, -1) / 255.0 - 0.5
    vectors = features @ projection(seed, dim).astype(np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def write_bundle(folder: Path, seed: int = 0, calibration: Calibration | None = None, dim: int = DIM) -> Path:
    """Write a valid bundle. Each seed gives another model."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = projection(seed, dim)
    constants = {
        "weights": weights,
        "scale": np.float32(255.0),
        "half": np.float32(0.5),
        "flat": np.array([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[_CELL, _CELL], strides=[_CELL, _CELL]),
        helper.make_node("Reshape", ["cells", "flat"], ["flattened"]),
        helper.make_node("Div", ["flattened", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "half"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = folder / "model.onnx"
    onnx.save(model, path)
    spec = InputSpec(height=HEIGHT, width=WIDTH)
    parity = Parity(data="none", images=1, batch_sizes=(1,), cosine_min=1.0, cosine_mean=1.0, gate_cosine_min=0.99999)
    entry = EngineFile(
        name=path.name,
        kind="onnx",
        precision="float32",
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        parity=parity,
    )
    manifest = Manifest(
        model=ModelInfo(
            variant="blocks",
            backbone="none",
            parts=1,
            embedding_size=dim,
            parameters=weights.size,
            fingerprint=fingerprint({"weights": weights}, spec),
        ),
        input=spec,
        output=OutputSpec(dim=dim),
        files=(entry,),
        evaluation=Evaluation(data="none", queries=1, gallery=1, mAP=1.0, mAP_official=1.0, mINP=1.0, cmc={1: 1.0}),
        calibration=calibration,
        provenance=Provenance(data="none", recipe="none", iterations=0, seed=seed),
    )
    save_manifest(folder, manifest)
    return folder


def onnx_runner(folder: Path, max_batch: int | None = None) -> OnnxRunner:
    """The bundle's engine file in ONNX Runtime on the CPU."""
    return OnnxRunner(folder / "model.onnx", SIGNATURE, max_batch=max_batch)


def change(folder: Path, *changes: dict[str, Any]) -> Path:
    """Replace the bundle's engine files by copies of the first, each with these members changed."""
    manifest = load_bundle(folder).manifest
    data = manifest.model_dump(mode="json")
    data["files"] = [{**data["files"][0], **change} for change in changes]
    save_manifest(folder, Manifest.model_validate(data))
    return folder
