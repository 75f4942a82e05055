"""Errors of training, on top of the bundle's tree.

PanError
+-- ConfigError        a run configuration that cannot be used: unknown key, wrong type, impossible value
+-- DataError          a data set that cannot be read: wrong layout, a corrupt file, too few identities
+-- CheckpointError    a checkpoint or weights file that does not fit
+-- Diverged           a loss or weights that are no longer finite
+-- OutOfMemory        a batch that does not fit into memory
+-- ProcessLost        another process of a distributed run ended
"""

from bundle import PanError


class ConfigError(PanError):
    """A run configuration that cannot be used."""

    code = "bad-config"


class DataError(PanError):
    """A data set that cannot be used."""

    code = "bad-data"


class CheckpointError(PanError):
    """A checkpoint or a weights file that does not fit."""

    code = "bad-checkpoint"


class Diverged(PanError):
    """The loss or the weights are no longer finite."""

    code = "diverged"


class OutOfMemory(PanError):
    """The run does not fit into memory."""

    code = "out-of-memory"


class ProcessLost(PanError):
    """Another process of the run ended."""

    code = "process-lost"
