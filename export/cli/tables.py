"""The results of the commands as tables and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bundle import RTX_DEFAULT_CAPABILITIES
from export.bundles.exporter import TIMED_BATCH, ExportResult
from export.onnx.diff import TensorDifference
from export.parity.agreement import Agreement, format_cosine
from export.tensorrt import BuiltEngine
from export.verification import Verdict

# 1 - cosine with PyTorch, maximum and mean; 1 - cosine of a crop with itself in another batch, maximum; points
MEASURED = ("1-cos", "mean", "batch", "mAP", "rank-1")


def exported_as_json(exported: ExportResult) -> dict[str, object]:
    """Everything that the table shows, as one object."""
    return {
        "bundle": str(exported.out),
        "fingerprint": exported.manifest.model.fingerprint,
        "files": [json.loads(file.model_dump_json()) for file in exported.manifest.files],
        "agreement": {label: _agreement(agreement) for label, agreement in exported.agreement.items()},
        "milliseconds_a_crop": {"batch": TIMED_BATCH, **exported.milliseconds},
        "int8_blocks_in_float": exported.float_blocks,
        "refused": exported.refused,
        "sizes": [asdict(size) for size in exported.sizes],
        "no_thresholds": exported.no_thresholds_reason or None,
    }


def show_exported(exported: ExportResult) -> None:
    """Print a row for each engine, the reasons of refused ones, and the path of the bundle."""
    first = next(iter(exported.agreement.values()))
    table = Table(
        title=f"compared with PyTorch ({exported.milliseconds['PyTorch']:.2f} ms per crop), on {first.data}: "
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
            difference = f"{1 - entry.parity.cosine_min:.0e}"
            print(f"explain graph {entry.name}, {entry.bytes / 1e6:.1f} MB: 1-cos with PyTorch {difference}")
    if exported.sizes:
        Console().print(_sizes(exported))
    if exported.no_thresholds_reason:
        print(f"the bundle has no thresholds and no calibration: {exported.no_thresholds_reason}")
    if exported.float_blocks:
        print(f"INT8: {exported.float_blocks} residual blocks stayed in float32 to pass the gates")
    for label, reason in exported.refused.items():
        print(f"refused {label}: {reason}")
    print(f"wrote {exported.out}, fingerprint {exported.manifest.model.fingerprint}")


def _sizes(exported: ExportResult) -> Table:
    table = Table(title="accuracy by descriptor size, on the ranked crops")
    for column in ("dimensions", "GB per million", "mAP", "rank-1", "mAP whitened", "rank-1 whitened"):
        table.add_column(column, justify="right")
    for size in exported.sizes:
        figures = (size.mAP, size.rank1, size.mAP_whitened, size.rank1_whitened)
        style = "bold" if size.dim == exported.manifest.model.embedding_size else None
        table.add_row(str(size.dim), f"{size.dim * 4e-3:.1f}", *(f"{value:.2f}" for value in figures), style=style)
    return table


def verdicts_as_json(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """One object per entry."""
    return [
        {
            "file": verdict.entry.name,
            "engine": verdict.entry.label,
            "verdict": "fail" if verdict.problem else "unseen" if verdict.skipped else "pass",
            "reason": verdict.problem or verdict.skipped,
            "agreement": verdict.agreement and _agreement(verdict.agreement),
        }
        for verdict in verdicts
    ]


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print a row for each entry, and the reasons of those that did not pass."""
    table = Table()
    for column in ("engine", "verdict", *MEASURED):
        table.add_column(column, justify="left" if column in ("engine", "verdict") else "right", no_wrap=True)
    for verdict in verdicts:
        word = "FAIL" if verdict.problem else "not run here" if verdict.skipped else "pass"
        table.add_row(verdict.entry.label, word, *(_cells(verdict.agreement) if verdict.agreement else []))
    Console().print(table)
    for verdict in verdicts:
        if reason := verdict.problem or verdict.skipped:
            print(f"{verdict.entry.label}: {reason}")


def show_differences(differences: Sequence[TensorDifference], first: TensorDifference | None, rows: int) -> None:
    """Print `rows` tensors around the first that differs, or the last ones if none does."""
    position = differences.index(first) if first else len(differences) - 1
    begin = max(0, position - rows // 2)
    table = Table(
        title=f"{len(differences)} tensors in both graphs; {begin + 1} to {min(begin + rows, len(differences))}"
    )
    for column in ("tensor", "operator", "min cosine", "max magnitude"):
        table.add_column(column, justify="left" if column in ("tensor", "operator") else "right")
    for difference in differences[begin : begin + rows]:
        style = "bold red" if difference is first else None
        cells = (difference.tensor, difference.operator, format_cosine(difference.cosine), f"{difference.largest:.3g}")
        table.add_row(*cells, style=style)
    Console().print(table)


def built_as_json(built: BuiltEngine) -> dict[str, object]:
    """Everything that the table shows, as one object."""
    return {
        "library": built.library,
        "sidecar": json.loads(built.sidecar.model_dump_json()),
        "typed_graph": _agreement(built.graph.agreement),
        "int8_blocks_in_float": built.graph.float_blocks,
        "engine": built.agreement and _agreement(built.agreement),
        "unverified": built.unverified,
    }


def show_built(bundle: Path, built: BuiltEngine) -> None:
    """Print the target, the measurements and the file of a TensorRT engine."""
    entry = built.entry
    batch, target = entry.batch, entry.built_for
    assert target is not None  # every engine has a target
    graph, blocks = built.graph.agreement, built.graph.float_blocks
    runs_on = target.gpu or (f"compute capability {target.compute_capability}" if target.compute_capability else None)
    rows = {
        "built by": f"{built.library} in {built.sidecar.build_seconds:.1f} s",
        "runs on": runs_on or f"RTX cards of compute capability {', '.join(RTX_DEFAULT_CAPABILITIES)}",
        "precision": entry.precision + (f", {blocks} residual blocks in float16" if blocks else ""),
        "batch": f"{batch.min} to {batch.max}, optimised for {batch.opt}",
        "measured on": f"{graph.data}: {graph.images} crops, compared with the bundle's float32 file",
        "typed graph, ONNX Runtime": _cosines(graph),
        "engine": _cosines(built.agreement) if built.agreement else f"UNVERIFIED: {built.unverified}",
    }
    table = Table(title=f"{entry.name}, {entry.bytes / 1e6:.1f} MB", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    print(f"added to {bundle}: {entry.label}, sidecar {entry.name}.json")


def _cosines(agreement: Agreement) -> str:
    return f"cosine min {format_cosine(agreement.cosine_min)}, mean {format_cosine(agreement.cosine_mean)}"


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
        "cosine_min": agreement.cosine_min,
        "cosine_mean": agreement.cosine_mean,
        "cosine_by_batch": {size: {"min": low, "mean": mean} for size, (low, mean) in agreement.cosine.items()},
        "consistency_min": agreement.consistency,
        "cosine_between_crops": agreement.crop_similarity,
        "queries": agreement.queries,
        "mAP_difference": agreement.mAP_difference,
        "rank1_difference": agreement.rank1_difference,
    }
