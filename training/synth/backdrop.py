"""Backgrounds (one street per camera) and occluders in front of a figure."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bundle import ImageArray
from training.synth.raster import Floats

WIDTH_M = 24.0  # width of a camera's street in metres
HEIGHT_M = 3.2
Box = tuple[int, int, int, int]


@lru_cache(maxsize=16)
def backdrop(seed: int, camera: int, pixels_per_metre: int) -> ImageArray:
    """The background of a camera, 3.2 m x 24 m, (H, W, 3) uint8 RGB: sections of wall above sections of ground."""
    rng = np.random.default_rng([seed, 3, camera])
    width, height = int(WIDTH_M * pixels_per_metre), int(HEIGHT_M * pixels_per_metre)
    picture = Image.new("RGB", (width, height))
    horizon = int(height * rng.uniform(0.5, 0.72))
    x = 0
    while x < width:
        stretch = Image.new("RGB", (int(rng.uniform(1.5, 3.5) * pixels_per_metre), height), _tone(rng, 0.2, 0.85))
        draw = ImageDraw.Draw(stretch)
        _wall(draw, rng, stretch.width, horizon, pixels_per_metre)
        _street_objects(draw, rng, stretch.width, horizon, pixels_per_metre)
        _ground(draw, rng, stretch.width, height, horizon)
        picture.paste(stretch, (x, 0))
        x += stretch.width
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(pixels_per_metre / 60)), np.float32)
    return np.clip(pixels + rng.normal(0, 5, (height, width, 1)), 0, 255).astype(np.uint8)


def _tone(rng: np.random.Generator, low: float, high: float, tint: float = 0.04) -> tuple[int, int, int]:
    red, green, blue = np.clip(rng.uniform(low, high) + rng.normal(0, tint, 3), 0, 1) * 255
    return int(red), int(green), int(blue)


def _around(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _wall(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, ppm: int) -> None:
    kind = rng.integers(4)
    if kind == 0:  # bricks
        joint, row = _tone(rng, 0.3, 0.7), max(4, int(0.18 * ppm))
        for i, y in enumerate(range(0, horizon, row)):
            draw.line((0, y, width, y), fill=joint)
            for x in range((i % 2) * row, width, 2 * row):
                draw.line((x, y, x, y + row), fill=joint)
    elif kind == 1:  # shop windows
        step = int(rng.uniform(0.8, 1.6) * ppm)
        for x in range(0, width, step):
            draw.rectangle((x + step // 8, horizon // 8, x + step, int(horizon * 0.85)), fill=_tone(rng, 0.1, 0.6))
            draw.line((x + step // 2, horizon // 8, x + step // 2, int(horizon * 0.85)), fill=_tone(rng, 0.6, 0.9))
    elif kind == 2:  # panels
        step = int(rng.uniform(0.3, 0.7) * ppm)
        for x in range(0, width, step):
            draw.rectangle((x, 0, x + step, horizon), fill=_tone(rng, 0.4, 0.75))
    else:  # hedge
        for _ in range(250):
            leaf, green = rng.uniform(0.05, 0.2) * ppm, rng.uniform(0.15, 0.5)
            place = _around(rng.uniform(0, width), rng.uniform(0, horizon), leaf)
            draw.ellipse(place, fill=(int(green * 150), int(green * 255), int(green * 110)))


def _street_objects(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, ppm: int) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, foot = int(rng.uniform(0, width)), int(horizon + rng.uniform(0, 0.3) * ppm)
        wide, tall = int(rng.uniform(0.15, 1.0) * ppm), int(rng.uniform(0.4, 1.5) * ppm)
        draw.rectangle((x, foot - tall, x + wide, foot), fill=_tone(rng, 0.1, 0.8, 0.07))
        if rng.random() < 0.6:
            inner = (x + wide // 6, foot - int(tall * 0.9), x + wide - wide // 6, foot - int(tall * 0.45))
            draw.rectangle(inner, fill=_tone(rng, 0.2, 0.9, 0.07))


def _ground(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int, horizon: int) -> None:
    draw.rectangle((0, horizon, width, height), fill=_tone(rng, 0.25, 0.75, 0.02))
    line = _tone(rng, 0.25, 0.8, 0.02)
    if rng.random() < 0.75:
        for k in range(1, 9):
            y = horizon + int((height - horizon) * (k / 8) ** 1.6)
            draw.line((0, y, width, y), fill=line)
        for x in range(-width, 2 * width, max(8, height // 6)):
            draw.line((width // 2 + (x - width // 2) // 2, horizon, x, height), fill=line)


def obstacle(kind: str, height: int, width: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """An occluder: colour (height, width, 3) in 0..1 and coverage (height, width) in 0..1."""
    picture, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height))
    paint, hide = ImageDraw.Draw(picture), ImageDraw.Draw(mask)

    def block(box: Box, fill: tuple[int, int, int]) -> None:
        paint.rectangle(box, fill=fill)
        hide.rectangle(box, fill=255)

    tone = _tone(rng, 0.15, 0.8, 0.08)
    if kind == "post":
        x, wide = int(rng.uniform(0.05, 0.85) * width), int(rng.uniform(0.1, 0.24) * width)
        block((x, 0, x + wide, height), tone)
        block((x, 0, x + wide // 3, height), _tone(rng, 0.5, 0.9))
    elif kind == "counter":
        top = int(rng.uniform(0.58, 0.85) * height)
        block((0, top, width, height), tone)
        block((0, top, width, top + max(2, height // 40)), _tone(rng, 0.5, 0.9))
    elif kind == "railing":
        top = int(rng.uniform(0.5, 0.7) * height)
        block((0, top, width, top + max(2, height // 40)), tone)
        for x in range(int(rng.integers(1, 8)), width, max(5, width // 6)):
            block((x, top, x + max(1, width // 32), height), tone)
    else:  # a bush
        for _ in range(60):
            leaf, green = rng.uniform(0.04, 0.13) * width, rng.uniform(0.2, 0.6)
            place = _around(rng.uniform(0, width), height * (1 - abs(rng.normal(0, 0.16))), leaf)
            paint.ellipse(place, fill=(int(green * 140), int(green * 240), int(green * 90)))
            hide.ellipse(place, fill=255)
    return np.asarray(picture, np.float32) / 255, np.asarray(mask, np.float32) / 255
