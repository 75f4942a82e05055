"""The values that an option may have. The command line reads them for its help, so nothing heavy is imported here."""

from enum import StrEnum
from typing import Literal

EngineChoice = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"]
Device = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["auto", "float32", "float16", "bfloat16", "int8"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Scope(StrEnum):
    """What an API key may be for."""

    EMBED = "embed"
    SEARCH = "search"
    ENROL = "enrol"
    ERASE = "erase"
    EXPORT = "export"
    ADMIN = "admin"
