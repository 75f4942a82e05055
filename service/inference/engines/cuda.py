"""The CUDA runtime with errors as exceptions."""

from typing import Any

from service.core.errors import EngineFailed


class CheckedCuda:
    """The functions of `cuda.bindings.runtime` without their error code. Raises EngineFailed if the code is not 0."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._runtime, name)
        if isinstance(attribute, type) or not callable(attribute):  # an enumeration or a flag
            return attribute

        def call(*arguments: Any) -> Any:
            code, *values = attribute(*arguments)
            if int(code) != 0:
                _, text = self._runtime.cudaGetErrorString(code)
                raise EngineFailed(f"{name}: {code.name}, {text.decode()}")
            return None if not values else values[0] if len(values) == 1 else tuple(values)

        return call


def cuda_runtime() -> CheckedCuda:
    """The CUDA runtime of the package cuda-bindings. Raises ImportError if it is not installed."""
    from cuda.bindings import runtime

    return CheckedCuda(runtime)
