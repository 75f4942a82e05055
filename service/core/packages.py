"""Checks the wheels of onnxruntime and faiss: the CPU wheel and the GPU wheel overwrite each other's files."""

from importlib.metadata import PackageNotFoundError, version

from bundle import pip_install
from service.core.errors import StartupError

_WHEELS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "faiss": ("faiss-cpu", "faiss-gpu"),
}


def check_binary_packages() -> dict[str, str]:
    """Return the installed wheel of each module, such as {"faiss": "faiss-cpu 1.15.1"}.

    Raises StartupError unless exactly one wheel of each is installed.
    """
    return {module: _installed_wheel(module, wheels) for module, wheels in _WHEELS.items()}


def _installed_wheel(module: str, wheels: tuple[str, ...]) -> str:
    found = []
    for wheel in wheels:
        try:
            found.append(f"{wheel} {version(wheel)}")
        except PackageNotFoundError:
            continue
    if not found:
        raise StartupError(f"{module} is not installed; run {pip_install('cpu')}, or gpu instead of cpu, never both")
    if len(found) > 1:
        raise StartupError(
            f"{' and '.join(found)} are both installed and overwrite each other's files; run: "
            f"pip uninstall -y {' '.join(wheels)} and then {pip_install('cpu')}, or gpu instead of cpu"
        )
    return found[0]
