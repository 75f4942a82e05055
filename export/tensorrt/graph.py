"""The typed ONNX graph of a precision: TensorRT computes in exactly the types of the graph."""

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
from export.quantisation.sensitivity import quantise_within_gates
from export.tensorrt.library import LibraryName
from training.callbacks import StepCallback
from training.embed import Embed


@dataclass(frozen=True, slots=True)
class TypedGraph:
    """The graph that is compiled, and its comparison with the bundle's float32 file in ONNX Runtime."""

    model: onnx.ModelProto
    agreement: Agreement
    float_blocks: str | None = None  # blocks of the INT8 graph that stayed in float, if any


# TensorRT-RTX does not fuse the operators after an INT8 convolution: it compiles a kernel for them, and the engine
# contains its source once per convolution. 52 of them added 7.0 MB (1.7.1.116; ResNet-50 of half width)
RTX_KERNEL_BYTES = 200_000


def typed_graph(
    bundle: Bundle,
    precision: Precision,
    reference: Reference,
    measuring: MeasurementSettings,
    library: LibraryName = "tensorrt",
    step: StepCallback = lambda _: None,
) -> TypedGraph:
    """The bundle's network in float32, float16 or int8 for TensorRT, checked against its gates without a GPU.

    float16 uses the bundle's own file if there is one. Raises ParityError if the graph fails its gates, BuildError if
    an INT8 engine would be larger than a float16 one.
    """
    gates = measuring.gates[precision]
    if precision == "int8":
        # ONNX Runtime computes symmetric Q/DQ in float. Rounding depends on the batch there and can cross an INT8
        # step. The engine's own consistency is measured on its GPU.
        gates = replace(gates, min_consistency=0.0)
    try:
        if precision == "int8":
            crops = calibration_crops(measuring.data, bundle.manifest.input, measuring.calibration)
            float32 = _load_graph(bundle, "float32")
            check_float16_range(float32, to_float16(float32), reference.samples.images_NHW3)
            calibrated = calibrate(float32, crops)
            light = calibrated.small_blocks(RTX_KERNEL_BYTES) if library == "tensorrt_rtx" else []
            if len(light) == len(calibrated.blocks):
                raise BuildError(
                    "no residual block of this network is large enough for an INT8 TensorRT-RTX engine to be smaller "
                    "than a float16 one; choose --precision float16"
                )

            def open_candidate(model: onnx.ModelProto) -> Embed:
                step("comparing a candidate for INT8")
                return _open(model)

            found = quantise_within_gates(calibrated, reference, gates, open_candidate, "tensorrt", light)
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
            f"the typed {precision} graph fails its gates in ONNX Runtime, so nothing was built: {error}"
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
