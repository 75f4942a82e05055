"""Gates by precision: the accuracy that an engine must reach to be written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bundle import Precision
from export.errors import ExportError
from training.config import parse_precision

MIN_QUERIES = 100  # with fewer, a single query that changes its rank exceeds every gate


@dataclass(frozen=True, slots=True)
class Gates:
    """Minimum cosines over all crops and batch sizes, and the maximum loss of mAP in points."""

    min_cosine: float  # with PyTorch
    min_consistency: float  # between a crop and itself in another batch
    max_mAP_loss: float


DEFAULTS: dict[Precision, Gates] = {
    "float32": Gates(min_cosine=0.99999, min_consistency=0.999999, max_mAP_loss=0.05),
    # two kernels of float16, as two batch sizes may get on a GPU: benchmarks/inference/float16_consistency.py
    "float16": Gates(min_cosine=0.999, min_consistency=0.9999, max_mAP_loss=0.2),
    "bfloat16": Gates(min_cosine=0.99, min_consistency=0.9999, max_mAP_loss=0.5),
    "int8": Gates(min_cosine=0.95, min_consistency=0.9999, max_mAP_loss=0.5),
}


def parse_gate(text: str) -> tuple[Precision, Gates]:
    """Parse `int8:0.97`, `int8:0.97:0.3` or `int8:0.97:0.3:0.999` into a precision and its gates.

    The numbers are the minimum cosine with PyTorch, the maximum loss of mAP, and the minimum cosine between a crop and
    itself in another batch. Raises ExportError.
    """
    name, *numbers = text.split(":")
    try:
        precision = parse_precision(name, list(DEFAULTS))
        values = dict(zip(("min_cosine", "max_mAP_loss", "min_consistency"), map(float, numbers), strict=False))
        gates = replace(DEFAULTS[precision], **values)
        cosines = gates.min_cosine, gates.min_consistency
        valid = 1 <= len(numbers) <= 3 and all(0 <= cosine <= 1 for cosine in cosines) and gates.max_mAP_loss >= 0
    except ValueError:
        valid = False
    if not valid:
        raise ExportError(
            f"--gate {text!r} is not PRECISION:COSINE[:POINTS[:CONSISTENCY]], such as int8:0.97:0.3 or "
            f"float16:0.999:0.2:0.9999; precisions are {', '.join(DEFAULTS)}"
        )
    return precision, gates


def parse_gates(texts: Iterable[str]) -> Mapping[Precision, Gates]:
    """The gates of every precision: the defaults, overridden by `texts`. Raises ExportError."""
    return {**DEFAULTS, **dict(map(parse_gate, texts))}
