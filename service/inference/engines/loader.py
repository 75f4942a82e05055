"""Loads the engine of a bundle that fits the settings and this machine."""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bundle import Bundle, PanError, Parity
from service.batching.thread_priority import lower_priority
from service.core.errors import StartupError
from service.core.settings import Settings
from service.inference.engine import Engine, Runner, Signature
from service.inference.engines.hardware import detect_hardware
from service.inference.engines.parity_check import check_parity
from service.inference.engines.select import Selection, select_engine

ENGINES_FOLDER = "engines"  # in the data folder: parity records and the kernel cache of TensorRT-RTX


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine, why it was selected, and its parity with PyTorch."""

    engine: Engine
    selection: Selection
    parity: Parity


def load_engine(bundle: Bundle, settings: Settings) -> LoadedEngine:
    """Select an engine file, load it, and check its parity if export did not. The data folder must exist.

    Raises StartupError if no engine fits the settings, and EngineFailed if the engine does not run.
    """
    hardware = detect_hardware()
    selection = select_engine(
        bundle.manifest.files,
        hardware,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        allow_unverified=settings.allow_unverified,
    )
    spec = bundle.manifest.input
    signature = Signature(spec.height, spec.width, bundle.manifest.output.dim)
    folder = settings.data / ENGINES_FOLDER
    path = bundle.path / selection.file.name
    engine = Engine(_load(path, lambda: _runner(selection, path, signature, settings.threads, folder)), signature)
    parity = selection.file.parity
    if parity is None:
        environment = f"{selection.engine} {hardware.versions[selection.engine]} on {hardware.gpu}"
        parity = check_parity(selection.file, engine, lambda: _reference(bundle, signature), folder, environment)
    return LoadedEngine(engine, selection, parity)


def _runner(selection: Selection, path: Path, signature: Signature, threads: int, folder: Path) -> Runner:
    file = selection.file
    if selection.engine == "onnxruntime":
        from service.inference.engines.onnxruntime import OnnxRunner

        return OnnxRunner(path, signature, selection.device, threads, file.batch.max)
    if selection.engine == "openvino":
        from service.inference.engines.openvino import OpenVinoRunner

        return OpenVinoRunner(path, signature, file.precision, threads, file.batch.max)

    from service.inference.engines.cuda import cuda_runtime
    from service.inference.engines.tensorrt import TensorRtRunner

    assert file.built_for is not None  # the manifest has it for every TensorRT engine
    folder.mkdir(exist_ok=True)
    kernels = folder / f"{file.sha256}.kernels"
    return TensorRtRunner(
        importlib.import_module(selection.engine), cuda_runtime(), path, signature, file.built_for, kernels
    )


def _reference(bundle: Bundle, signature: Signature) -> Engine:
    from service.inference.engines.onnxruntime import OnnxRunner

    _, path = bundle.file("onnx", "float32")
    return Engine(_load(path, lambda: OnnxRunner(path, signature)), signature)


def _load(path: Path, load: Callable[[], Runner]) -> Runner:
    try:
        # The threads of a runtime inherit the niceness of the thread that loads it.
        with ThreadPoolExecutor(1, thread_name_prefix="load", initializer=lower_priority) as thread:
            return thread.submit(load).result()
    except PanError:
        raise
    except Exception as error:  # each runtime has its own exceptions
        raise StartupError(
            f"{path.name} cannot be loaded ({type(error).__name__}: {error}); export the bundle again"
        ) from error
