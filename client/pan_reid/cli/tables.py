"""Responses as tables for the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pan_reid.schemas import AuditRecord, Gallery, Hit, Person, Scored, SearchAnswer


def print_hits(answer: SearchAnswer, console: Console) -> None:
    """Print a row for each hit, or for each person with the nearest entry; with re-ranking, a column of distances."""
    table = Table(box=SIMPLE_HEAD)
    reranked = any(hit.distance is not None for hit in answer.hits or [])
    more = ["mean", "of"] if answer.persons else ["distance"] if reranked else []
    for column in ["score", *more, "prob.", "verdict", "person", "camera", "entry"]:
        table.add_column(column, no_wrap=True)
    table.add_column("file", overflow="fold")
    for person in answer.persons or []:
        if person.hits:  # empty if the entries were deleted after the search
            scores = [_number(person.score), _number(person.mean), str(person.entries)]
            table.add_row(*scores, *_row(person, person.hits[0]))
    for hit in answer.hits or []:
        distance = [] if hit.distance is None else [_number(hit.distance)]
        table.add_row(_number(hit.score), *distance, *_row(hit, hit))
    console.print(table)
    if decision := answer.decision:
        measured = (
            f": false-positive rate {decision.false_positive_rate:g} per pair, calibrated on {decision.calibrated_on}"
            if decision.false_positive_rate is not None
            else ""
        )
        console.print(
            f"match at {decision.threshold:.4f} or more{measured}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def print_galleries(galleries: Sequence[Gallery], console: Console) -> None:
    """Print a row for each gallery."""
    table = Table(box=SIMPLE_HEAD)
    for column in ["gallery", "entries", "persons", "index", "retention", "crops", "purpose"]:
        table.add_column(column, overflow="fold")
    for one in galleries:
        days = "" if one.retention_days is None else f"{one.retention_days:g} days"
        crops = "kept" if one.keep_crops else ""
        cells = [one.name, f"{one.entries:,}", f"{one.persons:,}", one.index_now.kind, days, crops, one.purpose]
        table.add_row(*map(Text, cells))
    console.print(table)


def print_persons(persons: Sequence[Person], console: Console) -> None:
    """Print a row for each person."""
    table = Table(box=SIMPLE_HEAD)
    for column in ["person", "entries", "cameras"]:
        table.add_column(column, overflow="fold")
    for one in persons:
        table.add_row(Text(one.person_id), f"{one.entries:,}", f"{one.cameras:,}")
    console.print(table)


def print_audit(records: Sequence[AuditRecord], console: Console) -> None:
    """Print a row for each record."""
    table = Table(box=SIMPLE_HEAD)
    for column in ["time", "caller", "action", "gallery", "count", "detail"]:
        table.add_column(column, overflow="fold")
    for one in records:
        cells = [f"{one.at:%Y-%m-%d %H:%M:%SZ}", one.caller, one.action, one.gallery or ""]
        table.add_row(*map(Text, [*cells, f"{one.count:,}", one.detail or ""]))
    console.print(table)


def _row(scored: Scored, hit: Hit) -> list[Text]:
    probability = "" if scored.probability is None else _number(scored.probability)
    file = hit.attributes.get("file", "")
    known = [probability, scored.verdict, hit.person_id, hit.camera_id, hit.entry_id, file]
    return [Text("" if one is None else str(one)) for one in known]  # Text: names are not markup


def _number(value: float) -> str:
    return f"{value:.4f}"
