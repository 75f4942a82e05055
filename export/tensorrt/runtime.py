"""Runs an engine on a GPU as a function from pixels to descriptors; PyTorch allocates the buffers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle import BatchProfile, EngineFile, ImageArray, rtx_runs_on
from export.errors import BuildError, EngineMissing
from export.onnx.graph import INPUT, OUTPUT
from export.tensorrt.library import Library, find_library
from training.embed import Embed, Floats


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU of this machine."""

    name: str
    compute_capability: str


def find_gpu() -> Gpu | None:
    """The first GPU; None if there is none or PyTorch was built without CUDA."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return Gpu(torch.cuda.get_device_name(0), f"{major}.{minor}")


def cannot_run_reason(library: Library, gpu: Gpu | None, compute_capability: str | None) -> str | None:
    """Why an engine built here cannot run on this machine; None if it can."""
    if gpu is None:
        return "PyTorch finds no GPU here"
    if library.name == "tensorrt_rtx":
        targets = rtx_runs_on(compute_capability)
        if gpu.compute_capability not in targets:
            wanted = ", ".join(targets)
            return f"it is built for compute capability {wanted}, the {gpu.name} here has {gpu.compute_capability}"
    return None


def split_and_pad(embed: Embed, batch: BatchProfile) -> Embed:
    """The same function for any number of images: split at the profile's maximum, padded to its minimum."""

    def embed_any(images_BHW3: ImageArray) -> Floats:
        step = batch.max or len(images_BHW3)
        rows = []
        for start in range(0, len(images_BHW3), step):
            piece = images_BHW3[start : start + step]
            filled = np.resize(piece, (max(batch.min, len(piece)), *piece.shape[1:]))  # repeats the images
            rows.append(embed(filled)[: len(piece)])
        return np.concatenate(rows)

    return embed_any


def open_tensorrt_engine(entry: EngineFile, path: Path) -> Embed:
    """The engine of a bundle on this machine's GPU, for any number of images.

    Raises EngineMissing if it was built for another machine, BuildError if it does not load.
    """
    target = entry.built_for
    assert entry.kind in ("tensorrt", "tensorrt_rtx")
    assert target is not None  # the manifest has it for every TensorRT engine
    library = find_library(entry.kind)
    if library.version != target.library_version and not target.version_compatible:
        raise EngineMissing(
            f"it was built by version {target.library_version}, this machine has {library.title}; build it again here"
        )
    if why := cannot_run_reason(library, find_gpu(), target.compute_capability):
        raise EngineMissing(why)
    return split_and_pad(engine_embedder(library, path.read_bytes(), target.version_compatible), entry.batch)


def engine_embedder(library: Library, serialised: bytes, version_compatible: bool = False) -> Embed:
    """A function (B, H, W, 3) uint8 -> (B, D) float32 that runs an engine. Raises BuildError."""
    with library.capture_log() as log:
        runtime = library.create("Runtime")
        # a version-compatible engine contains a runtime, which is executable code
        runtime.engine_host_code_allowed = version_compatible
        engine = runtime.deserialize_cuda_engine(serialised)
        context = None if engine is None else _context(library, engine)
    if context is None:
        raise BuildError(f"{library.title} cannot load the engine here: {log.error_text()}")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def embed(images_BHW3: ImageArray) -> Floats:
        with library.capture_log() as log, torch.cuda.stream(stream):
            pixels = torch.from_numpy(images_BHW3).cuda()
            if not context.set_input_shape(INPUT, tuple(pixels.shape)):
                raise BuildError(f"the engine refuses a batch of shape {tuple(pixels.shape)}: {log.error_text()}")
            rows = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), dtype=torch.float32, device="cuda")
            context.set_tensor_address(INPUT, pixels.data_ptr())
            context.set_tensor_address(OUTPUT, rows.data_ptr())
            if not context.execute_async_v3(stream.cuda_stream):
                raise BuildError(f"the engine failed: {log.error_text()}")
            stream.synchronize()
        result: Floats = rows.cpu().numpy()
        return result

    return embed


def _context(library: Library, engine: Any) -> Any:
    """An execution context that uses the final kernels from the first batch on.

    By default, TensorRT-RTX uses general kernels for the first batches of a size while it compiles specialised ones;
    the measurement would then not apply to later batches.
    """
    if library.name == "tensorrt":
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = library.trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)
