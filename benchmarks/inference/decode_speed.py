"""Milliseconds of one core from the bytes of a crop to the network's input, beside the same work by Pillow alone.

    python -m benchmarks.inference.decode_speed [--data FOLDER] [--rounds 40] [--json]

A picture of each kind is decoded in turns by `bundle.load_crop` and by plain Pillow, which gives the same pixels.
`ratio` is Pillow's CPU time over ours, a median over the rounds. The crops are synthetic; with `--data`, the JPEG
kinds are crops of a folder, resized and encoded to the same size in bytes. One thread decodes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from benchmarks.common.turns import median, ratio, take_turns
from bundle import ImageArray, load_crop
from training.synth import render, sample_camera, sample_person, sample_shot

CROPS = 16  # pictures of a kind
REPEATS = 8  # of all of them in a turn


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of crop: its name, height and width in the file, and the size of the network's input."""

    name: str
    height: int
    width: int
    to: tuple[int, int]
    bytes: int | None = None  # a JPEG of about this size; None: a PNG


KINDS = (
    Kind("JPEG 128x384, 16 kB", 384, 128, (384, 128), 16_000),
    Kind("JPEG 64x128, 2.7 kB", 128, 64, (128, 64), 2_700),
    Kind("JPEG 64x128 to 128x384", 128, 64, (384, 128), 2_700),
    Kind("JPEG 200x500 to 128x384", 500, 200, (384, 128), 30_000),
    Kind("PNG 64x128 to 128x384", 128, 64, (384, 128)),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds of CPU time a crop."""

    kind: str
    bytes: int
    ms: float
    pillow_ms: float
    ratio: float


def by_pillow(data: bytes, height: int, width: int) -> ImageArray:
    """The same steps by Pillow: open, decode, turn upright, convert, resize."""
    with Image.open(BytesIO(data), formats=["JPEG", "PNG"]) as image:
        ImageOps.exif_transpose(image, in_place=True)
        upright = np.asarray(image.convert("RGB"))
    if upright.shape[:2] == (height, width):
        return upright
    return np.asarray(Image.fromarray(upright).resize((width, height), Image.Resampling.BILINEAR))


def sources(folder: Path | None) -> list[Image.Image]:
    """Crops of the folder, or synthetic people."""
    if folder is not None:
        paths = sorted(folder.rglob("*.jpg"))
        return [Image.open(path).convert("RGB") for path in paths[:: max(1, len(paths) // CROPS)][:CROPS]]
    camera = sample_camera(0, 1)
    people = range(1, CROPS + 1)
    return [
        Image.fromarray(render(sample_person(0, n), camera, sample_shot(0, n, camera, 0), 500, 200)) for n in people
    ]


def encode(image: Image.Image, kind: Kind) -> bytes:
    """The picture in the size of the kind, in the quality that comes nearest to its bytes."""
    resized = image.resize((kind.width, kind.height), Image.Resampling.BICUBIC)

    def saved(form: str, **options: Any) -> bytes:
        stream = BytesIO()
        resized.save(stream, form, **options)
        return stream.getvalue()

    size = kind.bytes
    if size is None:
        return saved("PNG")
    return min(
        (saved("JPEG", quality=quality) for quality in range(30, 100, 3)), key=lambda data: abs(len(data) - size)
    )


def measure(kind: Kind, images: Sequence[Image.Image], rounds: int) -> Speed:
    """Decode the pictures in turns by both; every result is compared once."""
    files = [encode(image, kind) for image in images]
    for data in files:
        assert np.array_equal(load_crop(data, *kind.to), by_pillow(data, *kind.to))

    def work(load: Callable[[bytes, int, int], ImageArray]) -> None:
        for data in files * REPEATS:
            load(data, *kind.to)

    turns = take_turns({"ours": partial(work, load_crop), "pillow": partial(work, by_pillow)}, rounds)
    crops = len(files) * REPEATS
    return Speed(
        kind.name,
        sum(map(len, files)) // len(files),
        1000 * median(turns["ours"]).cpu / crops,
        1000 * median(turns["pillow"]).cpu / crops,
        ratio(turns["pillow"], turns["ours"]).cpu,
    )


def main(
    data: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="Crops to encode anew.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 40,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Compare the time to decode a crop with that of plain Pillow."""
    images = sources(data)
    speeds = [measure(kind, images, rounds) for kind in KINDS]
    if as_json:
        print(json.dumps([asdict(speed) for speed in speeds]))
        return
    table = Table(title="from bytes to the network's input, CPU time of one core")
    for column in ("crop", "bytes", "ms", "plain Pillow, ms", "ratio"):
        table.add_column(column, justify="left" if column == "crop" else "right")
    for speed in speeds:
        figures = f"{speed.ms:.3f}", f"{speed.pillow_ms:.3f}", f"{speed.ratio:.2f}"
        table.add_row(speed.kind, f"{speed.bytes:,}", *figures)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
