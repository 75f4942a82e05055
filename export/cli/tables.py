"""What an export or a verification saw, as tables for people and JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from export.bundles.exporter import TIMED_BATCH, Exported
from export.onnx.diff import Departure
from export.parity.agreement import Agreement, format_cosine
from export.verification import Verdict

# 1 - cosine with PyTorch, its greatest and mean; of a crop with itself in other batches; points of mAP and rank-1
MEASURED = ("1-cos", "mean", "batch", "mAP", "rank-1")


def exported_as_json(exported: Exported) -> dict[str, object]:
    """One object with everything the table says."""
    return {
        "bundle": str(exported.out),
        "fingerprint": exported.manifest.model.fingerprint,
        "files": [json.loads(file.model_dump_json()) for file in exported.manifest.files],
        "agreement": {label: _agreement(agreement) for label, agreement in exported.agreement.items()},
        "milliseconds_a_crop": {"batch": TIMED_BATCH, **exported.milliseconds},
        "int8_blocks_in_float": exported.float_blocks,
        "refused": exported.refused,
        "sizes": [asdict(size) for size in exported.sizes],
        "no_thresholds": exported.no_thresholds or None,
    }


def show_exported(exported: Exported) -> None:
    """A row a target, what was refused and why, and where the bundle is."""
    first = next(iter(exported.agreement.values()))
    table = Table(
        title=f"against PyTorch ({exported.milliseconds['PyTorch']:.2f} ms a crop), on {first.data}: "
        f"{first.images} crops in batches of {', '.join(map(str, first.cosine))}; {first.queries} queries ranked"
    )
    for column in ("engine", "MB", "ms/crop", *MEASURED):
        table.add_column(column, justify="left" if column == "engine" else "right", no_wrap=True)
    embedding = [entry for entry in exported.manifest.files if entry.purpose == "embed"]
    sizes = {f"{entry.kind}:{entry.precision}": entry.bytes / 1e6 for entry in embedding}
    for label, agreement in exported.agreement.items():
        table.add_row(label, f"{sizes[label]:.1f}", f"{exported.milliseconds[label]:.2f}", *_cells(agreement))
    Console().print(table)
    for entry in exported.manifest.files:
        if entry.purpose == "explain" and entry.parity:
            departure = f"{1 - entry.parity.cosine_min:.0e}"
            print(f"maps in {entry.name}, {entry.bytes / 1e6:.1f} MB: 1-cos with PyTorch {departure}")
    if exported.sizes:
        Console().print(_sizes(exported))
    if exported.no_thresholds:
        print(f"no thresholds and no calibration in the bundle: {exported.no_thresholds}")
    if exported.float_blocks:
        print(f"INT8: {exported.float_blocks} residual blocks stayed in float32, for the gates")
    for label, reason in exported.refused.items():
        print(f"refused {label}: {reason}")
    print(f"wrote {exported.out}, fingerprint {exported.manifest.model.fingerprint}")


def _sizes(exported: Exported) -> Table:
    table = Table(title="what a descriptor's size costs, on the crops that were ranked")
    for column in ("numbers", "GB a million", "mAP", "rank-1", "mAP whitened", "rank-1 whitened"):
        table.add_column(column, justify="right")
    for size in exported.sizes:
        figures = (size.mAP, size.rank1, size.mAP_whitened, size.rank1_whitened)
        style = "bold" if size.dim == exported.manifest.model.embedding_size else None
        table.add_row(str(size.dim), f"{size.dim * 4e-3:.1f}", *(f"{value:.2f}" for value in figures), style=style)
    return table


def verdicts_as_json(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """One object an entry."""
    return [
        {
            "file": verdict.entry.name,
            "engine": verdict.entry.label,
            "verdict": "fail" if verdict.problem else "unseen" if verdict.unseen else "pass",
            "reason": verdict.problem or verdict.unseen,
            "agreement": verdict.agreement and _agreement(verdict.agreement),
        }
        for verdict in verdicts
    ]


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """A row an entry, and the reasons of those that did not pass."""
    table = Table()
    for column in ("engine", "verdict", *MEASURED):
        table.add_column(column, justify="left" if column in ("engine", "verdict") else "right", no_wrap=True)
    for verdict in verdicts:
        word = "FAIL" if verdict.problem else "not run here" if verdict.unseen else "pass"
        table.add_row(verdict.entry.label, word, *(_cells(verdict.agreement) if verdict.agreement else []))
    Console().print(table)
    for verdict in verdicts:
        if reason := verdict.problem or verdict.unseen:
            print(f"{verdict.entry.label}: {reason}")


def show_departures(departures: Sequence[Departure], first: Departure | None, rows: int) -> None:
    """The tensors before and after the first departure, or the last ones where there is none."""
    position = departures.index(first) if first else len(departures) - 1
    begin = max(0, position - rows // 2)
    table = Table(title=f"{len(departures)} tensors of one name; {begin + 1} to {min(begin + rows, len(departures))}")
    for column in ("tensor", "operator", "cosine min", "largest"):
        table.add_column(column, justify="left" if column in ("tensor", "operator") else "right")
    for departure in departures[begin : begin + rows]:
        style = "bold red" if departure is first else None
        cells = (departure.tensor, departure.operator, format_cosine(departure.cosine), f"{departure.largest:.3g}")
        table.add_row(*cells, style=style)
    Console().print(table)


def _cells(agreement: Agreement) -> tuple[str, ...]:
    return (
        f"{1 - agreement.cosine_min:.0e}",
        f"{1 - agreement.cosine_mean:.0e}",
        f"{1 - agreement.consistency:.0e}",
        f"{agreement.mAP_difference:+.2f}",
        f"{agreement.rank1_difference:+.2f}",
    )


def _agreement(agreement: Agreement) -> Mapping[str, object]:
    return {
        "data": agreement.data,
        "images": agreement.images,
        "cosine_by_batch": {size: {"min": low, "mean": mean} for size, (low, mean) in agreement.cosine.items()},
        "consistency_min": agreement.consistency,
        "cosine_between_crops": agreement.spread,
        "queries": agreement.queries,
        "mAP_difference": agreement.mAP_difference,
        "rank1_difference": agreement.rank1_difference,
    }
