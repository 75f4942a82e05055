"""Which onnxruntime and faiss wheel is installed: the CPU and the GPU wheel overwrite one another silently."""

from importlib.metadata import PackageNotFoundError, version

from bundle import pip_install
from service.core.errors import StartupError

_WHEELS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "faiss": ("faiss-cpu", "faiss-gpu"),
}


def check_binary_packages() -> dict[str, str]:
    """Module -> wheel and version, {"faiss": "faiss-cpu 1.15.1"}. Raises StartupError unless there is one of each."""
    return {module: _the_one(module, wheels) for module, wheels in _WHEELS.items()}


def _the_one(module: str, wheels: tuple[str, ...]) -> str:
    found = []
    for wheel in wheels:
        try:
            found.append(f"{wheel} {version(wheel)}")
        except PackageNotFoundError:
            continue
    if not found:
        raise StartupError(f"{module} is not installed; run {pip_install('cpu')}, or gpu in its place, never both")
    if len(found) > 1:
        raise StartupError(
            f"{' and '.join(found)} are both installed, and overwrite one another's files; run: "
            f"pip uninstall -y {' '.join(wheels)} and then {pip_install('cpu')}, or gpu in its place"
        )
    return found[0]
