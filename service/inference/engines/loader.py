"""From a bundle and the operator's wishes to an engine that runs."""

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
from service.inference.engines.hardware import this_machine
from service.inference.engines.parity_check import verified
from service.inference.engines.select import Selection, choose

FOLDER = "engines"  # of the data folder: verifications, and kernels that TensorRT-RTX compiled


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine, what it is and how well it agrees with PyTorch."""

    engine: Engine
    choice: Selection
    parity: Parity


def load_engine(bundle: Bundle, settings: Settings) -> Loaded:
    """Choose an engine file, load it and, where nobody has, verify it. The data folder must exist.

    Raises StartupError where what was asked for cannot be had, EngineFailed where the engine does not run.
    """
    machine = this_machine()
    choice = choose(
        bundle.manifest.files,
        machine,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        allow_unverified=settings.allow_unverified,
    )
    spec = bundle.manifest.input
    signature = Signature(spec.height, spec.width, bundle.manifest.output.dim)
    folder = settings.data / FOLDER
    path = bundle.path / choice.file.name
    engine = Engine(_loading(path, lambda: _runner(choice, path, signature, settings.threads, folder)), signature)
    parity = choice.file.parity
    if parity is None:
        where = f"{choice.engine} {machine.versions[choice.engine]} on {machine.gpu}"
        parity = verified(choice.file, engine, lambda: _reference(bundle, signature), folder, where)
    return Loaded(engine, choice, parity)


def _runner(choice: Selection, path: Path, signature: Signature, threads: int, folder: Path) -> Runner:
    file = choice.file
    if choice.engine == "onnxruntime":
        from service.inference.engines.onnxruntime import OnnxRunner

        return OnnxRunner(path, signature, choice.device, threads, file.batch.max)
    if choice.engine == "openvino":
        from service.inference.engines.openvino import OpenVinoRunner

        return OpenVinoRunner(path, signature, file.precision, threads, file.batch.max)

    from service.inference.engines.cuda import cuda_runtime
    from service.inference.engines.tensorrt import TensorRtRunner

    assert file.built_for is not None  # the manifest holds it for every TensorRT engine
    folder.mkdir(exist_ok=True)
    kernels = folder / f"{file.sha256}.kernels"
    return TensorRtRunner(
        importlib.import_module(choice.engine), cuda_runtime(), path, signature, file.built_for, kernels
    )


def _reference(bundle: Bundle, signature: Signature) -> Engine:
    from service.inference.engines.onnxruntime import OnnxRunner

    _, path = bundle.file("onnx", "float32")
    return Engine(_loading(path, lambda: OnnxRunner(path, signature)), signature)


def _loading(path: Path, load: Callable[[], Runner]) -> Runner:
    try:
        # The threads that a runtime starts take their priority from the one that loads it.
        with ThreadPoolExecutor(1, thread_name_prefix="load", initializer=lower_priority) as thread:
            return thread.submit(load).result()
    except PanError:
        raise
    except Exception as error:  # each runtime raises its own classes
        raise StartupError(
            f"{path.name} cannot be loaded ({type(error).__name__}: {error}); export the bundle again"
        ) from error
