"""Errors of export, on top of the bundle's tree.

PanError
+-- ExportError         a checkpoint cannot become a bundle
    +-- GraphError      the exported graph is invalid or has another signature
    +-- ParityError     an engine fails its gates, or the network has collapsed
    +-- TargetError     the output folder cannot be used
    +-- EngineMissing   the package or the GPU for an engine is missing
    +-- BuildError      TensorRT cannot build, load or run an engine
    +-- PlanError       a plan for many exports is wrong, or its folder is in use
"""

from bundle import PanError


class ExportError(PanError):
    """A checkpoint cannot become a bundle."""

    code = "export-failed"


class GraphError(ExportError):
    """The exported graph is invalid or has another signature."""

    code = "bad-graph"


class ParityError(ExportError):
    """An engine fails its gates, or the network has collapsed so that every engine would pass them."""

    code = "parity-failed"


class TargetError(ExportError):
    """The output folder cannot be used."""

    code = "bad-target"


class EngineMissing(ExportError):
    """The package or the GPU that an engine needs is missing on this machine."""

    code = "engine-missing"


class BuildError(ExportError):
    """TensorRT cannot build, load or run an engine."""

    code = "build-failed"


class PlanError(ExportError):
    """A plan for many exports is wrong, or its folder is in use."""

    code = "bad-plan"
