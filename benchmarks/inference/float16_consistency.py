"""Differences between float16 vectors of one crop for different kernels, batch sizes and positions.

    python -m benchmarks.inference.float16_consistency RUN --data DIR

A GPU library selects kernels by batch size, so the vector of a crop depends on its batch. Different kernels also exist
on a CPU: the float16 graph in ONNX Runtime with and without fusion, and PyTorch with autocast, which rounds at other
places. The gate in export.parity.gates must allow these differences.
"""

import argparse
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from bundle import ImageArray, InputSpec
from export.onnx.float16 import to_float16
from export.onnx.graph import INPUT, OUTPUT, onnx_graph
from export.parity.agreement import BATCH_SIZES, format_cosine, in_batches
from export.parity.samples import load_samples
from training.checkpoint import load_checkpoint
from training.embed import Embed, Floats, torch_embedder
from training.model import PAN, Normalise, to_planes


def main() -> None:
    """Print the smallest and mean cosine between vectors of a crop, for each kernel and each pair of kernels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=64)
    arguments = parser.parse_args()
    network, card = load_checkpoint(arguments.checkpoint)
    images = load_samples(arguments.data, card.input, arguments.images, 1).images_NHW3
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "float16.onnx"
        onnx.save_model(to_float16(onnx_graph(network, card.input, {})), path)
        level = onnxruntime.GraphOptimizationLevel
        kernels = {
            "ONNX Runtime, fused": _session(path, level.ORT_ENABLE_ALL),
            "ONNX Runtime, as written": _session(path, level.ORT_DISABLE_ALL),
            "PyTorch autocast": _autocast(network, card.input),
        }
        rows = {
            name: [in_batches(embed, images, size) for size in BATCH_SIZES if name != "PyTorch autocast" or size < 32]
            for name, embed in kernels.items()
        }
    exact = in_batches(torch_embedder(network, card.input), images, 32)
    for name, batches in rows.items():
        print(f"{name}: {_words([(batch, batches[0]) for batch in batches[1:]])} in another batch")
        print(f"{name}: {_words([(batch, exact) for batch in batches])} with PyTorch float32")
    for one, other in combinations(rows, 2):
        print(f"{one} and {other}: {_words([(a, b) for a in rows[one] for b in rows[other]])}")


def _words(pairs: list[tuple[Floats, Floats]]) -> str:
    cosines = np.concatenate([_cosine(a, b) for a, b in pairs])
    return f"cosine min {format_cosine(float(cosines.min()))}, mean {format_cosine(float(cosines.mean()))}"


def _cosine(a_ND: Floats, b_ND: Floats) -> npt.NDArray[np.float64]:
    a, b = (rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None] for rows in (a_ND, b_ND))
    cosine: npt.NDArray[np.float64] = (a * b).sum(1)
    return cosine


def _session(path: Path, level: onnxruntime.GraphOptimizationLevel) -> Embed:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(images_BHW3: ImageArray) -> Floats:
        (descriptor,) = session.run([OUTPUT], {INPUT: images_BHW3})
        return np.asarray(descriptor, np.float32)

    return embed


def _autocast(network: PAN, spec: InputSpec) -> Embed:
    """PyTorch with autocast: float16 convolutions and products, separate batch norms."""
    normalise = Normalise(spec)

    def embed(images_BHW3: ImageArray) -> Floats:
        with torch.inference_mode(), torch.autocast("cpu", torch.float16):
            descriptor = network.describe(normalise(to_planes(torch.from_numpy(images_BHW3))))
        return np.asarray(descriptor.float().numpy(), np.float32)

    return embed


if __name__ == "__main__":
    main()
