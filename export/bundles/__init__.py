"""From a checkpoint to a bundle folder: which engines to make, how they are made, and how the folder is written.

`export_checkpoint` does all of it; `attach_engine` adds one engine file to a bundle that is in use.
"""

from export.bundles.attach import Slot, attach_engine, check_free_slot
from export.bundles.exporter import Exported, export_checkpoint
from export.bundles.projection import Reduction
from export.bundles.targets import TARGETS, MeasurementSettings, Target, parse_target
from export.bundles.writer import new_bundle

__all__ = [
    "TARGETS",
    "Exported",
    "MeasurementSettings",
    "Reduction",
    "Slot",
    "Target",
    "attach_engine",
    "check_free_slot",
    "export_checkpoint",
    "new_bundle",
    "parse_target",
]
