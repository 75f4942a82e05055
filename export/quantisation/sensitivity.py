"""Which residual blocks INT8 must leave in float: found by measurement, and only when the gates need it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from export.errors import ParityError
from export.parity.agreement import Agreement, Reference, check_gates
from export.parity.gates import Gates
from export.quantisation.qdq import Calibrated, Scheme, quantise
from training.embed import Embed

Open = Callable[[onnx.ModelProto], Embed]


@dataclass(frozen=True, slots=True)
class Quantised:
    """An INT8 graph that passes its gates, and how many of its residual blocks stayed in float for that."""

    model: onnx.ModelProto
    agreement: Agreement
    float_blocks: int
    blocks: int


def quantise_to_pass(
    calibrated: Calibrated,
    reference: Reference,
    gates: Gates,
    open_model: Open,
    scheme: Scheme = "cpu",
    always_float: Sequence[Sequence[str]] = (),
) -> Quantised:
    """The INT8 graph with the fewest blocks in float that passes: none, else the 1, 2, 4 ... most sensitive ones.

    A block is the more sensitive, the further the descriptors move when it alone is quantised. Those of `always_float`
    are not quantised at all. Raises ParityError of the graph with all others on eight bits where even half of them in
    float do not help.
    """
    blocks = [block for block in calibrated.blocks if block not in always_float]
    given = {name for block in always_float for name in block}

    def attempt(kept: set[str], count: int) -> Quantised:
        model = quantise(calibrated, given | kept, scheme)
        agreement = reference.compare(open_model(model))
        check_gates(agreement, gates)
        return Quantised(model, agreement, len(always_float) + count, len(calibrated.blocks))

    try:
        return attempt(set(), 0)
    except ParityError as error:
        first = error
    everything = {name for block in calibrated.blocks for name in block}
    alone = [reference.closeness(open_model(quantise(calibrated, everything - set(block), scheme))) for block in blocks]
    worst_first = sorted(range(len(blocks)), key=lambda index: alone[index])
    count = 1
    while count <= len(blocks) // 2:
        kept = {name for index in worst_first[:count] for name in blocks[index]}
        try:
            return attempt(kept, count)
        except ParityError:
            count *= 2
    raise ParityError(f"{first}; leaving the {count // 2} most sensitive of {len(blocks)} blocks in float did not help")
