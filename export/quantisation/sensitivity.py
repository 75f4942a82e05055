"""Finds by measurement which residual blocks must stay in float if the full INT8 graph fails its gates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from export.errors import ParityError
from export.parity.agreement import Agreement, Reference, check_gates
from export.parity.gates import Gates
from export.quantisation.qdq import CalibratedGraph, Scheme, quantise
from training.embed import Embed

Open = Callable[[onnx.ModelProto], Embed]


@dataclass(frozen=True, slots=True)
class QuantisedGraph:
    """An INT8 graph that passes its gates, and its number of residual blocks in float."""

    model: onnx.ModelProto
    agreement: Agreement
    float_blocks: int
    blocks: int


def quantise_within_gates(
    calibrated: CalibratedGraph,
    reference: Reference,
    gates: Gates,
    open_model: Open,
    scheme: Scheme = "cpu",
    always_float: Sequence[Sequence[str]] = (),
) -> QuantisedGraph:
    """The INT8 graph with the fewest blocks in float that passes its gates: 0, 1, 2, 4 ... of the most sensitive ones.

    The sensitivity of a block is the change of the descriptors when it alone is quantised. Blocks in `always_float` are
    never quantised. Raises ParityError if the graph fails even with half of the blocks in float.
    """
    blocks = [block for block in calibrated.blocks if block not in always_float]
    given = {name for block in always_float for name in block}

    def attempt(kept: set[str], count: int) -> QuantisedGraph:
        model = quantise(calibrated, given | kept, scheme)
        agreement = reference.compare(open_model(model))
        check_gates(agreement, gates)
        return QuantisedGraph(model, agreement, len(always_float) + count, len(calibrated.blocks))

    try:
        return attempt(set(), 0)
    except ParityError as error:
        first = error
    everything = {name for block in calibrated.blocks for name in block}
    cosines = [
        reference.mean_cosine(open_model(quantise(calibrated, everything - set(block), scheme))) for block in blocks
    ]
    worst_first = sorted(range(len(blocks)), key=lambda index: cosines[index])
    count = 1
    while count <= len(blocks) // 2:
        kept = {name for index in worst_first[:count] for name in blocks[index]}
        try:
            return attempt(kept, count)
        except ParityError:
            count *= 2
    raise ParityError(
        f"{first}; with the {count // 2} most sensitive of {len(blocks)} residual blocks in float it fails as well"
    )
