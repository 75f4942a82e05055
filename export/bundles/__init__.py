"""Bundles: which engines to make from a checkpoint, how they are made and measured, and how the folder is written.

`export_checkpoint` writes a bundle and `add_engines` adds engines to it. `attach_engine` and `detach_engines` add and
remove single files of a bundle that is in use. Imports `export.onnx`, `export.parity` and `export.quantisation`.
"""

from export.bundles.attach import Slot, attach_engine, check_free_slot, detach_engines
from export.bundles.exporter import ExportResult, add_engines, export_checkpoint
from export.bundles.projection import Reduction
from export.bundles.targets import TARGETS, MeasurementSettings, Target, parse_target
from export.bundles.writer import new_bundle

__all__ = [
    "TARGETS",
    "ExportResult",
    "MeasurementSettings",
    "Reduction",
    "Slot",
    "Target",
    "add_engines",
    "attach_engine",
    "check_free_slot",
    "detach_engines",
    "export_checkpoint",
    "new_bundle",
    "parse_target",
]
