"""What a search found, as a table in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pan_reid.schemas import Hit, Scored, SearchAnswer


def show_found(answer: SearchAnswer, console: Console) -> None:
    """One row a hit; or one a person, with the nearest of their entries."""
    table = Table(box=SIMPLE_HEAD)
    grouped = ["mean", "of"] if answer.persons else []
    for column in ["score", *grouped, "prob.", "verdict", "person", "camera", "entry"]:
        table.add_column(column, no_wrap=True)
    table.add_column("file", overflow="fold")
    for person in answer.persons or []:
        if person.hits:  # none, where they were deleted since
            scores = [_number(person.score), _number(person.mean), str(person.entries)]
            table.add_row(*scores, *_row(person, person.hits[0]))
    for hit in answer.hits or []:
        table.add_row(_number(hit.score), *_row(hit, hit))
    console.print(table)
    if decision := answer.decision:
        console.print(
            f"match from {decision.threshold:.4f} on: false-positive rate {decision.false_positive_rate:g} a pair, "
            f"calibrated on {decision.calibrated_on}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def _row(judged: Scored, hit: Hit) -> list[Text]:
    probability = "" if judged.probability is None else _number(judged.probability)
    file = hit.attributes.get("file", "")
    known = [probability, judged.verdict, hit.person_id, hit.camera_id, hit.entry_id, file]
    return [Text("" if one is None else str(one)) for one in known]  # Text: names are not markup


def _number(value: float) -> str:
    return f"{value:.4f}"
