"""Finds the residual blocks that must stay in float, by measurement, if the full INT8 graph fails its gates."""

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
    """An INT8 graph that passes its gates, and its number of residual blocks in float."""

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
    """The INT8 graph with the fewest blocks in float that passes its gates: 0, 1, 2, 4 ... of the most sensitive ones.

    The sensitivity of a block is the change of the descriptors when it alone is quantised. Blocks in `always_float` are
    never quantised. Raises ParityError if the graph fails even with half of the blocks in float.
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
