"""Synthetic pictures: people as coloured blocks, never a photograph."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def person(identity: int, shot: int = 0, height: int = 128, width: int = 64) -> Image.Image:
    """A figure of six coloured blocks; another shot of the same identity differs by noise and brightness."""
    colours = np.random.default_rng(identity).integers(20, 236, size=(6, 1, 3))
    blocks = np.repeat(np.repeat(colours, -(-height // 6), axis=0)[:height], width, axis=1).astype(np.float64)
    noise = np.random.default_rng((identity, shot))
    pixels = blocks * noise.uniform(0.9, 1.1) + noise.normal(0.0, 6.0, size=blocks.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture file."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(identity: int, shot: int = 0) -> bytes:
    """The bytes of a picture of a person."""
    return encode(person(identity, shot))


def write_market(folder: Path, persons: int, cameras: int, shots: int = 1) -> Path:
    """A folder in Market-1501's layout, with one distractor and one piece of junk."""
    folder.mkdir(parents=True, exist_ok=True)
    for identity in range(1, persons + 1):
        for camera in range(1, cameras + 1):
            for shot in range(shots):
                name = f"{identity:04d}_c{camera}s1_{shot:06d}_01.jpg"
                (folder / name).write_bytes(encode(person(identity, 100 * camera + shot), "JPEG", quality=95))
    (folder / "0000_c1s1_000000_01.jpg").write_bytes(encode(person(9000), "JPEG"))
    (folder / "-1_c1s1_000000_01.jpg").write_bytes(encode(person(9001), "JPEG"))
    return folder
