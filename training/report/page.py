"""The report of a run: everything gathered, measured, drawn and put into one page that needs no other file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bundle import Evaluation
from training.callbacks import ProgressCallback
from training.embed import embed_data, torch_embedder
from training.errors import ConfigError
from training.evaluation.calibration import BINS
from training.experiments.paper import PRINTED, Printed
from training.experiments.tables import Summary, results, summaries
from training.report.figures import Line, Marker, area_chart, line_chart
from training.report.gather import Run, Series, read_crops, read_run
from training.report.measure import RetrievalResults, measure_retrieval
from training.report.parts import part_names, part_pictures
from training.report.pictures import COLOURS, crop_uri

# chart title -> columns; of metrics.csv and of evaluations.csv
CURVES = {
    "Loss, and its cross-entropy": ("loss", "xent"),
    "Triplet loss": ("triplet",),
    "Overlap term of the masks": ("orthogonality",),
    "Part masks: live and overlap": ("live", "overlap"),
    "Gradient norm of an update": ("grad_norm",),
    "Factor of the gradient clip": ("clip_factor",),
    "Gradient norm of each loss term": ("grad_xent", "grad_triplet", "grad_orthogonality"),
    "Learning rate of new layers": ("lr",),
    "Images a second": ("images_per_s",),
}
VALIDATION = {"Validation, per cent": ("mAP", "rank-1")}
WIDE = 50  # calibration bins in one of the histogram's: 0.025 of cosine
SAME = 0.05  # points: two evaluations that agree to this are not both shown


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart and its caption."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True, slots=True)
class VariantTable:
    """What `pan-train ablate` measured, and, apart from it, what the paper prints."""

    folder: str
    ours: list[Summary]
    paper: list[tuple[str, str, Printed]]  # table, row, figures


class Page(NamedTuple):
    """A report and what the caller must tell the user."""

    html: str
    warning: str  # what is omitted and why; empty if nothing is
    shows_people: bool  # contains crops


def render(
    folder: Path,
    data: Path | None,
    table: Path | None,
    *,
    crops: bool,
    without_pam: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Page:
    """The page of a run.

    data: measure on this data set instead of the run's own. table: folder of `pan-train ablate`; None: the one the run
    lies in, if any. crops: show pictures. without_pam: a run whose network has no PAM, for the comparison of figure 5.
    Raises ConfigError, CheckpointError, DataError.
    """
    run = read_run(folder)
    variants = _variant_table(run, table)
    other = _run_without_pam(without_pam) if without_pam else None
    reid, warning = read_crops(run, data)
    if reid is not None:
        reid = reid.without_junk()
    measured = None
    if reid is not None and not warning:
        embedded = embed_data(torch_embedder(run.network, run.card.input), reid, run.card.input, progress)
        measured = measure_retrieval(embedded, reid)
    pictures, plain_pictures = [], []
    if reid is not None and crops and run.has_learned_parts:
        pictures = part_pictures(run, reid.query or reid.train)
        plain_pictures = part_pictures(other, reid.query or reid.train) if other else []
    shows_people = crops and bool(measured or pictures)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        run=run,
        card=run.card,
        data=reid,
        warning=warning,
        crops=crops,
        shows_people=shows_people,
        crop_uri=crop_uri,
        colours=", ".join(f"#{colour}" for colour in COLOURS),
        evaluations=_evaluations(run.card.evaluation, measured),
        curves=[*_curves(run.metrics, CURVES), *_curves(run.evaluations, VALIDATION)],
        retrieval=_retrieval(run, measured) if measured else [],
        measured=measured,
        parts=part_names(run.card.network) if run.has_learned_parts else [],
        part_pictures=pictures,
        without_pam=other,
        plain_pictures=plain_pictures,
        variants=variants,
        own_row=run.folder.name.rpartition("-seed")[0],
        settings=yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False),
    )
    return Page(html, warning, shows_people)


def _run_without_pam(folder: Path) -> Run:
    run = read_run(folder)
    if len(run.network.pams) or not run.has_learned_parts:
        raise ConfigError(
            f"{folder} is a run of {run.card.variant}; --without-pam takes one with learned parts and no attention, "
            "such as baseline"
        )
    return run


def _evaluations(own: Evaluation | None, measured: RetrievalResults | None) -> list[tuple[str, Evaluation]]:
    """The evaluation of the run, and the new one if it differs."""
    rows = [("by the run", own)] if own else []
    if measured and (own is None or not _agree(own, measured.evaluation)):
        rows.append(("for this page", measured.evaluation))
    return rows


def _agree(a: Evaluation, b: Evaluation) -> bool:
    pairs = [(a.mAP, b.mAP), (a.mINP, b.mINP), *((a.cmc[rank], b.cmc[rank]) for rank in a.cmc)]
    return a.data == b.data and all(abs(one - other) <= SAME for one, other in pairs)


def _curves(series: Series, charts: Mapping[str, Sequence[str]]) -> list[Figure]:
    figures = []
    for title, names in charts.items():
        lines = [line for name in names if series.get(name) and (line := _measured(name, series))]
        if lines:
            last = ", ".join(f"{line.name} {line.y[-1]:.3g}" for line in lines)
            figures.append(Figure(title, line_chart(lines, "iteration", from_zero=True), f"last: {last}"))
    return figures


def _measured(name: str, series: Series) -> Line | None:
    """A column without the rows in which it was not measured (nan)."""
    points = [(x, y) for x, y in zip(series["step"], series[name], strict=True) if math.isfinite(y)]
    return Line(name, *zip(*points, strict=True)) if points else None


def _retrieval(run: Run, measured: RetrievalResults) -> list[Figure]:
    ranks = [float(rank) for rank in range(1, len(measured.cmc) + 1)]
    cmc = line_chart([Line("queries answered by this rank, %", ranks, measured.cmc)], "rank")
    counts = measured.histogram.positive, measured.histogram.negative
    shares = [100 * count.reshape(-1, WIDE).sum(1) / max(1, count.sum()) for count in counts]
    used = [place for place, both in enumerate(zip(*shares, strict=True)) if any(both)]
    span = slice(max(0, used[0] - 1), used[-1] + 2)
    cosine = [(place + 0.5) * 2 * WIDE / BINS - 1 for place in range(BINS // WIDE)][span]
    areas = [
        Line(name, cosine, [float(share) for share in values[span]])
        for name, values in zip(("same person", "different people"), shares, strict=True)
    ]
    calibration = run.card.calibration
    thresholds = calibration.thresholds if calibration else {}
    marks = [Marker(cosine, f"FPR {100 * float(rate):g} %: {cosine:.3f}") for rate, cosine in thresholds.items()]
    same, different = (int(count.sum()) for count in counts)
    caption = f"{same:,} pairs of one person, {different:,} pairs of two people."
    if marks and calibration:
        caption += f" Thresholds at stated false-positive rates, calibrated on {calibration.data}."
    return [
        Figure("CMC", cmc, f"{measured.evaluation.queries} queries, {measured.evaluation.gallery} gallery crops"),
        Figure("Similarity of pairs, % of each kind", area_chart(areas, marks, "cosine similarity"), caption),
    ]


def _variant_table(run: Run, table: Path | None) -> VariantTable | None:
    folder = table or run.folder.parent
    ours = []
    if table or (folder / "table.csv").is_file():
        ours = summaries(results(folder))
    if table is None and not ours:
        return None
    if not ours:
        raise ConfigError(f"{folder} holds no finished run of `pan-train ablate`; name the folder of its --out")
    paper = [
        (name, row.row, printed) for name, known in PRINTED.items() for row in ours if (printed := known.get(row.row))
    ]
    return VariantTable(folder.resolve().name, ours, paper)
