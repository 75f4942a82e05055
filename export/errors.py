"""Errors of export, on top of the bundle's tree.

PanError
+-- ExportError         a checkpoint cannot become a bundle
    +-- GraphError      the exported graph is not what was asked for
    +-- ParityError     an engine file does not agree with PyTorch, or the measurement proves nothing
    +-- TargetError     the folder to write cannot be used
    +-- EngineMissing   a package that runs or writes the engine file is not installed
    +-- BuildError      TensorRT cannot build, load or run an engine
    +-- PlanError       a plan for many exports is wrong, or its folder is in use
"""

from bundle import PanError


class ExportError(PanError):
    """A checkpoint cannot become a bundle."""

    code = "export-failed"


class GraphError(ExportError):
    """The exported graph is not what was asked for."""

    code = "bad-graph"


class ParityError(ExportError):
    """An engine file does not agree with PyTorch, or the measurement proves nothing."""

    code = "parity-failed"


class TargetError(ExportError):
    """The folder to write cannot be used."""

    code = "bad-target"


class EngineMissing(ExportError):
    """A package that is needed to run an engine file is not installed."""

    code = "engine-missing"


class BuildError(ExportError):
    """TensorRT cannot build, load or run an engine."""

    code = "build-failed"


class PlanError(ExportError):
    """A plan for many exports is wrong, or its folder is in use."""

    code = "bad-plan"
