"""A picture of ranked lists: each row has a query and its nearest gallery crops, in green or red frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

RIGHT, WRONG, QUERY = (34, 150, 80), (205, 50, 50), (40, 60, 90)
CELL, FRAME, GAP = (80, 160), 4, 6


@dataclass(frozen=True, slots=True)
class Row:
    """One query and its hits, best first."""

    query: Path
    hits: Sequence[tuple[Path, bool, float]]  # crop, same person?, cosine


def ranked_list(rows: Sequence[Row], out: Path) -> None:
    """Write a PNG of queries and their hits."""
    columns = 1 + max(len(row.hits) for row in rows)
    pitch_x, pitch_y = CELL[0] + 2 * FRAME + GAP, CELL[1] + 2 * FRAME + GAP + 14
    sheet = Image.new("RGB", (columns * pitch_x + 3 * GAP, len(rows) * pitch_y + GAP + 18), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), "query", fill=QUERY)
    draw.text((pitch_x + 2 * GAP, GAP), "nearest crops of the other cameras: green is the same person", fill=QUERY)
    for line, row in enumerate(rows):
        top = 18 + GAP + line * pitch_y
        _paste(sheet, row.query, GAP, top, QUERY)
        for column, (path, right, score) in enumerate(row.hits, start=1):
            left = GAP + column * pitch_x + GAP
            _paste(sheet, path, left, top, RIGHT if right else WRONG)
            draw.text((left + FRAME, top + CELL[1] + 2 * FRAME), f"{score:.2f}", fill=RIGHT if right else WRONG)
    sheet.save(out)


def _paste(sheet: Image.Image, path: Path, left: int, top: int, colour: tuple[int, int, int]) -> None:
    with Image.open(path) as crop:
        framed = Image.new("RGB", (CELL[0] + 2 * FRAME, CELL[1] + 2 * FRAME), colour)
        framed.paste(crop.convert("RGB").resize(CELL), (FRAME, FRAME))
    sheet.paste(framed, (left, top))
