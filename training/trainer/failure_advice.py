"""Turns the errors that end a run (out of memory, not finite, lost process) into messages with a remedy."""

from torch import OutOfMemoryError
from torch.distributed import DistError

from bundle import PanError
from training.config import RunConfig
from training.errors import Diverged, OutOfMemory, ProcessLost

FULL = ("not enough memory", "DefaultCPUAllocator", "out of memory")
LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


def advise(error: Exception, config: RunConfig, kept: str) -> PanError | None:
    """An error with a remedy, or None if the cause is not memory, a value that is not finite, or a lost process.

    `kept` describes the saved state that the run can resume from.
    """
    words = str(error)
    if isinstance(error, FloatingPointError):
        precision = "" if config.precision == "float32" else ", or train in precision=float32"
        return Diverged(
            f"{words}; lower optim.lr (now {config.optim.lr:g}) or lengthen optim.warmup (now "
            f"{config.optim.warmup:g}){precision}. {kept}"
        )
    if isinstance(error, OutOfMemoryError | MemoryError) or _says(error, FULL):
        sampler, data, accumulate = config.sampler, config.data, config.optim.accumulate
        precision = "set precision=bfloat16, " if config.precision == "float32" else ""
        return OutOfMemory(
            f"memory is full at {sampler.identities} x {sampler.crops} crops of {data.height} x {data.width}, "
            f"optim.accumulate={accumulate}; raise optim.accumulate, {precision}lower sampler.identities, data.height "
            f"and data.width, or data.cache_gib where it is the host's memory. {kept}"
        )
    if isinstance(error, DistError) or _says(error, LOST):
        return ProcessLost(f"another process of this run ended; see its message. {kept}")
    return None


def _says(error: Exception, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
