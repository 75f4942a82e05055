"""Values of command-line options. The command line imports this module for `--help`, so it imports nothing heavy."""

from enum import StrEnum
from typing import Literal

EngineChoice = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"]
Device = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["auto", "float32", "float16", "bfloat16", "int8"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Scope(StrEnum):
    """A permission of an API key."""

    EMBED = "embed"
    SEARCH = "search"
    ENROL = "enrol"
    ERASE = "erase"
    EXPORT = "export"
    ADMIN = "admin"
