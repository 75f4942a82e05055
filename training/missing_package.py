"""The message of a command whose packages are not installed."""

import sys
from typing import NoReturn

from bundle.extras import Extra, pip_install

OWN_PACKAGES = {"bundle", "training", "export"}
EXTRAS: dict[str, tuple[Extra, ...]] = {"onnxruntime": ("cpu", "train")}  # all other packages are in [train]


def exit_for_missing_package(command: str, error: ModuleNotFoundError) -> NoReturn:
    """Print one line that names the missing package and the extra that installs it, and exit with status 1.

    Raises `error` again if the missing module is one of this project: no extra would install it.
    """
    package = (error.name or "").partition(".")[0]
    if not package or package in OWN_PACKAGES:
        raise error
    extras = EXTRAS.get(package, ("train",))
    print(f"error: {command} needs {package}, which is not installed; {pip_install(*extras)}", file=sys.stderr)
    sys.exit(1)
