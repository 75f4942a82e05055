"""The explain graph: pixels in, part masks and compatibility maps out.

It is a separate file, so that a service loads it only for explain requests.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from bundle import ImageArray, InputSpec, Parity
from export.errors import ParityError
from export.onnx.graph import INPUT, Preprocessing, trace
from export.parity.agreement import BATCH_SIZES, format_cosine
from export.parity.gates import DEFAULTS
from training.model import PAN
from training.model.explain import explain

MASKS, COMPATIBILITY = "masks", "compatibility_{block}"


class _Explained(nn.Module):
    def __init__(self, network: PAN, spec: InputSpec) -> None:
        super().__init__()
        self.pixels, self.network = Preprocessing(spec), network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = explain(self.network, self.pixels(images))
        return (maps.mask_BIhw, *maps.compatibility)


def explain_graph(network: PAN, spec: InputSpec, metadata: Mapping[str, str], opset: int) -> onnx.ModelProto:
    """The graph (B, H, W, 3) uint8 -> `masks` (B, I, h, w) and `compatibility_1` ... (B, I, h_l, w_l), all float32.

    A variant without part-aware attention has only `masks`.
    """
    return trace(_Explained(network, spec), spec, output_names(network), metadata, opset)


def output_names(network: PAN) -> list[str]:
    """The outputs of a network's graph, in order."""
    attended = len(network.pams) if hasattr(network, "pams") else 0
    return [MASKS, *(COMPATIBILITY.format(block=block) for block in range(1, attended + 1))]


def compare_maps(network: PAN, spec: InputSpec, path: Path, images_NHW3: ImageArray, data: str) -> Parity:
    """Compare the graph's maps with PyTorch at every batch size, by the cosine of each crop's map of each output.

    Raises ParityError if a cosine is below the float32 gate.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = output_names(network)
    module = _Explained(network, spec).eval()
    cosines = []
    for size in BATCH_SIZES:
        batch = images_NHW3[np.arange(size) % len(images_NHW3)]
        with torch.inference_mode():
            expected = [maps.numpy() for maps in module(torch.from_numpy(batch))]
        for name, ours, theirs in zip(names, session.run(names, {INPUT: batch}), expected, strict=True):
            cosine = _cosine(ours, theirs)
            if cosine.min() < DEFAULTS["float32"].min_cosine:
                raise ParityError(
                    f"{name} of the explain graph differs from PyTorch: min cosine {format_cosine(cosine.min())}"
                )
            cosines.append(cosine)
    every = np.concatenate(cosines)
    return Parity(
        data=data,
        images=len(images_NHW3),
        batch_sizes=BATCH_SIZES,
        cosine_min=float(every.min()),
        cosine_mean=float(every.mean()),
        gate_cosine_min=DEFAULTS["float32"].min_cosine,
    )


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosine of each crop's maps as one vector; two zero vectors (dead masks) count as equal."""
    rows_a, rows_b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (a, b))
    norms = np.linalg.norm(rows_a, axis=1) * np.linalg.norm(rows_b, axis=1)
    both_zero = ~rows_a.any(1) & ~rows_b.any(1)
    return np.where(both_zero, 1.0, (rows_a * rows_b).sum(1) / np.maximum(norms, 1e-300))
