"""Hostile pictures by the hundred: what they cost the server's process in memory. Their answers are in test_api."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.common.served import Served
from tests.support.pictures import REFUSALS, encode, hostile, png, unusual

PIXELS = 4_000_000
MIB = 2**20
DECODING = 80  # MiB for all pictures that are decoded at a time: enough for one WebP of these pixels
SLACK = 128 * MIB  # bodies, and what the allocator keeps of pictures that are gone


def largest() -> list[bytes]:
    """Pictures of a few kilobytes that are just within the limit of pixels."""
    side = int(PIXELS**0.5)
    modes = ("RGB", "RGBA", "P", "L", "1")
    return [
        *(encode(Image.new(mode, (side, side))) for mode in modes),
        encode(Image.fromarray(np.zeros((side, side), np.uint16))),
        encode(Image.new("CMYK", (side, side)), "JPEG"),
        encode(Image.new("RGB", (side, side)), "WEBP"),
    ]


def peak(server: Served) -> int:
    """The most bytes of memory that the process ever held."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_hostile_and_huge_pictures_cost_no_more_memory_than_their_pixels(launch: Callable[..., Served]) -> None:
    server = launch("--max-pixels", str(PIXELS), "--max-decode-mib", str(DECODING))
    bad = [data for data, _ in hostile().values()]

    with httpx.Client(base_url=server.url, timeout=120) as http, ThreadPoolExecutor(8) as pool:

        def embed(pictures: list[bytes]) -> list[str | None]:
            answer = http.post("/v1/embeddings", files=[("images", ("x", data)) for data in pictures])
            assert answer.status_code in (200, 207), answer.text
            return [item.get("error", {}).get("code") for item in answer.json()["embeddings"]]

        embed([png(1)] * 32)  # a batch in full
        before = server.resident()
        batches = [largest(), *([png(1), data, png(2)] for data in bad), *([odd] for odd in unusual().values())]
        for _ in range(3):
            answers = list(pool.map(embed, batches))
        assert peak(server) - before < DECODING * MIB + SLACK
    assert set(answers[0]) == {None}  # as large as is accepted, so accepted
    for codes in answers[1 : len(bad) + 1]:
        assert (codes[0], codes[2]) == (None, None)
        assert codes[1] in REFUSALS
