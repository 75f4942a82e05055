"""The command that installs an optional dependency, in one place so that it matches README."""

from typing import Literal, get_args

Extra = Literal["cpu", "gpu", "otel", "openvino", "tensorrt", "rtx", "train", "timm"]


def pip_install(*extras: Extra, options: str = "") -> str:
    """The command that adds extras to this environment: `pip install ./client '.[cpu,train]' (in the source folder)`.

    `options` are those of `pip install`, such as `--force-reinstall`. Raises ValueError for an unknown extra.
    """
    if unknown := set(extras) - set(get_args(Extra)):
        raise ValueError(f"no such extra: {', '.join(sorted(unknown))}")
    command = f"pip install {options}".rstrip()
    return f"{command} ./client '.[{','.join(extras)}]' (in the source folder)"
