"""CPU time from the encoded bytes of a crop to the input of the network, compared with Pillow alone.

    python -m benchmarks.inference.decode_speed [--data FOLDER] [--rounds 40] [--json]

Images of each kind are decoded in turns by `bundle.load_crop` and by Pillow, with equal pixels. `ratio` is the CPU time
of Pillow over ours, the median over the rounds. The crops are synthetic; with `--data`, the JPEG kinds are crops of a
folder, resized and encoded to the same number of bytes. Decoding uses one thread.
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

CROPS = 16  # images of each kind
REPEATS = 8  # repetitions per turn


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of crop: name, height and width of the image, and size of the network's input."""

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
    """CPU time in ms per crop."""

    kind: str
    bytes: int
    ms: float
    pillow_ms: float
    ratio: float


def by_pillow(data: bytes, height: int, width: int) -> ImageArray:
    """The same steps with Pillow: open, decode, rotate by EXIF, convert, resize."""
    with Image.open(BytesIO(data), formats=["JPEG", "PNG"]) as image:
        ImageOps.exif_transpose(image, in_place=True)
        upright = np.asarray(image.convert("RGB"))
    if upright.shape[:2] == (height, width):
        return upright
    return np.asarray(Image.fromarray(upright).resize((width, height), Image.Resampling.BILINEAR))


def sources(folder: Path | None) -> list[Image.Image]:
    """Crops of the folder, or synthetic crops."""
    if folder is not None:
        paths = sorted(folder.rglob("*.jpg"))
        return [Image.open(path).convert("RGB") for path in paths[:: max(1, len(paths) // CROPS)][:CROPS]]
    camera = sample_camera(0, 1)
    people = range(1, CROPS + 1)
    return [
        Image.fromarray(render(sample_person(0, n), camera, sample_shot(0, n, camera, 0), 500, 200)) for n in people
    ]


def encode(image: Image.Image, kind: Kind) -> bytes:
    """The image resized for the kind, with the JPEG quality that is closest to its number of bytes."""
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
    """Decode the images with both in turns. Compares the results once."""
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
    data: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of crops to re-encode.")
    ] = None,
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
