"""Opens engine files as functions (B, H, W, 3) uint8 -> (B, D) float32, like `training.embed.torch_embedder`."""

from pathlib import Path

import numpy as np

from bundle import ImageArray, Kind, Precision, pip_install
from export.errors import EngineMissing
from export.onnx.graph import INPUT, OUTPUT
from training.embed import Embed, Floats


def open_engine(kind: Kind, precision: Precision, path: Path, threads: int) -> Embed:
    """The function (B, H, W, 3) uint8 -> (B, D) float32 of a file, run by the runtime `kind` on the CPU.

    Raises EngineMissing if the runtime is not installed or does not support the precision.
    """
    match kind:
        case "onnx":
            return onnx_embedder(path, threads)
        case "openvino":
            return openvino_embedder(path, precision, threads)
        case _:
            raise EngineMissing(f"{kind} engines run on a GPU only; `pan-export tensorrt` builds and checks them")


def onnx_embedder(path: Path, threads: int) -> Embed:
    """An ONNX file in ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        raise EngineMissing(
            f"ONNX Runtime is not installed, so the export cannot be checked; run {pip_install('cpu', 'train')}"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin after a run would occupy the cores of the session that runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors only; its warnings are about float16 optimisations
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(images_BHW3: ImageArray) -> Floats:
        (descriptor,) = session.run([OUTPUT], {INPUT: images_BHW3})
        return np.asarray(descriptor, np.float32)

    return embed


def openvino_embedder(path: Path, precision: Precision, threads: int) -> Embed:
    """An ONNX file in OpenVINO. The precision is set explicitly: the default is bfloat16 on CPUs that support it."""
    try:
        import openvino
    except ImportError:
        raise EngineMissing(f"OpenVINO is not installed; run {pip_install('openvino')}") from None
    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineMissing("this CPU does not support bfloat16; leave the engine out, or export on another machine")
    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if computed != hint:
        raise EngineMissing(f"OpenVINO computes in {computed} here, not in {hint}; leave {precision} out")
    request = compiled.create_infer_request()

    def embed(images_BHW3: ImageArray) -> Floats:
        (descriptor,) = request.infer([images_BHW3]).values()
        return np.array(descriptor, np.float32)  # a copy, because the next call overwrites this memory

    return embed
