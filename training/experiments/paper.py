"""The figures that the paper prints, by table and row. They are shown in tables of their own, never beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Printed:
    """A row of a table of the paper; None: the table has no such column.

    rank-k and mAP in per cent; millions of parameters; GiB of training memory at batch 128; seconds for the test on one
    Quadro GV100.
    """

    rank1: float | None = None
    rank5: float | None = None
    rank10: float | None = None
    mAP: float | None = None
    parameters: float | None = None
    memory: float | None = None
    seconds: float | None = None


def _table2(rank1: float, mean: float, parameters: float, memory: float, seconds: float) -> Printed:
    return Printed(rank1=rank1, mAP=mean, parameters=parameters, memory=memory, seconds=seconds)


PRINTED: Mapping[str, Mapping[str, Printed]] = {
    "table1": {
        "global_pool": Printed(86.0, 94.3, 96.2, 68.9),
        "stripes_3": Printed(91.7, 96.8, 97.9, 78.1),
        "stripes_6": Printed(92.5, 96.8, 98.1, 79.5),
        "stripes_8": Printed(92.4, 97.0, 98.0, 79.2),
        "plm_1": Printed(90.0, 96.4, 97.4, 75.4),
        "plm_12": Printed(91.8, 96.4, 97.5, 78.9),
        "baseline": Printed(92.9, 97.4, 98.4, 80.4),
        "plm_1234": Printed(92.8, 96.9, 98.1, 79.9),
    },
    "table2": {
        "baseline": _table2(93.0, 81.1, 27.8, 17.79, 72),
        "baseline_w": _table2(93.4, 81.8, 29.2, 17.80, 74),
        "conv_a": _table2(93.5, 82.0, 35.2, 17.83, 76),
        "conv_c": _table2(93.7, 82.5, 32.3, 17.81, 75),
        "pan_a_128": _table2(93.5, 83.0, 32.5, 17.81, 75),
        "pan_a": _table2(93.8, 83.5, 33.5, 17.82, 77),
        "pan_a_wide": _table2(93.9, 83.6, 36.6, 17.84, 79),
        "pan_c_128": _table2(93.8, 83.7, 33.0, 17.82, 76),
        "pan_c": _table2(94.3, 84.2, 33.9, 17.83, 76),
        "pan_c_wide": _table2(94.3, 84.1, 37.0, 17.85, 78),
        "nl": _table2(93.9, 83.9, 30.5, 21.63, 79),
        "pan_c_nl": _table2(94.8, 85.3, 36.7, 21.66, 84),
    },
    "table3": {"market1501": Printed(96.0, 98.6, 99.3, 89.0)},
    "table4": {"cuhk03_labeled": Printed(rank1=82.5, mAP=80.4)},
    "table5": {"dukemtmc": Printed(rank1=89.5, mAP=79.2)},
    "orthogonality": {
        "lambda_0": Printed(mAP=80.36),
        "lambda_1e-1": Printed(mAP=80.21),
        "lambda_1e-2": Printed(mAP=80.87),
        "lambda_1e-3": Printed(mAP=81.14),
        "lambda_1e-4": Printed(mAP=80.46),
    },
}
