"""The typed ONNX graph of a precision: TensorRT computes in the types it finds there, and in no others."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch

from bundle import Bundle, BundleFileError, Precision
from export.bundles.targets import MeasurementSettings
from export.engines import onnx_embedder
from export.errors import BuildError, ParityError
from export.onnx.float16 import check_float16_range, to_float16
from export.parity.agreement import Agreement, Reference, check_gates
from export.parity.samples import calibration_crops
from export.quantisation.qdq import calibrate
from export.quantisation.sensitivity import quantise_to_pass
from export.tensorrt.library import LibraryName
from training.embed import Embed


@dataclass(frozen=True, slots=True)
class TypedGraph:
    """What is compiled, and how far it departs from the bundle's float32 file when ONNX Runtime runs both."""

    model: onnx.ModelProto
    agreement: Agreement
    float_blocks: str | None = None  # of the INT8 graph, where some had to stay in float


# TensorRT-RTX does not fuse what follows a convolution on eight bits: it compiles a kernel for it, whose source is in
# the engine once for each convolution. 52 of them added 7.0 MB (1.7.1.116; ResNet-50 of half width)
RTX_KERNEL_BYTES = 200_000


def typed_graph(
    bundle: Bundle,
    precision: Precision,
    reference: Reference,
    measuring: MeasurementSettings,
    library: LibraryName = "tensorrt",
) -> TypedGraph:
    """The bundle's network in float32, float16 or int8, as TensorRT can read it, past its gates without any GPU.

    float16 is the bundle's own file where it has one. Raises ParityError where no engine of it could pass, BuildError
    where INT8 would make it larger than float16 does.
    """
    gates = measuring.gates[precision]
    if precision == "int8":
        # ONNX Runtime computes symmetric Q/DQ in float, where another batch rounds otherwise and a step of eight bits
        # is crossed. What the engine itself does in another batch is measured on its GPU.
        gates = replace(gates, min_consistency=0.0)
    try:
        if precision == "int8":
            crops = calibration_crops(measuring.data, bundle.manifest.input, measuring.calibration)
            float32 = _load_graph(bundle, "float32")
            check_float16_range(float32, to_float16(float32), reference.samples.images_NHW3)
            calibrated = calibrate(float32, crops)
            light = calibrated.light_blocks(RTX_KERNEL_BYTES) if library == "tensorrt_rtx" else []
            if len(light) == len(calibrated.blocks):
                raise BuildError(
                    "no residual block of this network has weights enough for INT8 to make a TensorRT-RTX engine "
                    "smaller than float16 does; choose --precision float16"
                )
            found = quantise_to_pass(calibrated, reference, gates, _open, "tensorrt", light)
            kept = f"{found.float_blocks} of {found.blocks}" if found.float_blocks else None
            return TypedGraph(found.model, found.agreement, kept)
        model = _float_graph(bundle, precision)
        if precision == "float16":
            check_float16_range(_load_graph(bundle, "float32"), model, reference.samples.images_NHW3)
        agreement = reference.compare(_open(model))
        check_gates(agreement, gates)
        return TypedGraph(model, agreement)
    except ParityError as error:
        raise ParityError(
            f"the typed {precision} graph fails in ONNX Runtime already, nothing was built: {error}"
        ) from error


def _float_graph(bundle: Bundle, precision: Precision) -> onnx.ModelProto:
    match precision:
        case "float32":
            return _load_graph(bundle, "float32")
        case "float16":
            try:
                return _load_graph(bundle, "float16")
            except BundleFileError:
                return to_float16(_load_graph(bundle, "float32"))
        case _:
            raise BuildError(f"no TensorRT engine is built in {precision}; choose float32, float16 or int8")


def _load_graph(bundle: Bundle, precision: Precision) -> onnx.ModelProto:
    return onnx.load_model(bundle.file("onnx", precision)[1])


def _open(model: onnx.ModelProto) -> Embed:
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "typed.onnx"
        onnx.save_model(model, path)
        return onnx_embedder(path, torch.get_num_threads())
