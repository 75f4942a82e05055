"""Engine files as functions from pixels to descriptors, with the signature of `training.embed.torch_embedder`."""

from pathlib import Path

import numpy as np

from bundle import ImageArray
from export.errors import EngineMissing
from export.onnx_graph import INPUT, OUTPUT
from training.embed import Embed, Floats


def onnx_embedder(path: Path, threads: int) -> Embed:
    """A function (B, H, W, 3) uint8 -> (B, D) float32 that runs an ONNX file in ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise EngineMissing(
            "ONNX Runtime is not installed, so the export cannot be checked; pip install 'pan-reid[cpu,train]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(images_BHW3: ImageArray) -> Floats:
        (descriptor,) = session.run([OUTPUT], {INPUT: images_BHW3})
        return np.asarray(descriptor, np.float32)

    return embed
