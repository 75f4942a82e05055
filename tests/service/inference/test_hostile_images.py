"""Peak memory of a server that decodes hundreds of hostile images. test_api checks the responses."""

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
DECODING = 80  # MiB for all concurrent decodes: enough for one WebP of PIXELS
SLACK = 128 * MIB  # request bodies, and freed memory that the allocator keeps


def largest() -> list[bytes]:
    """Images of a few kilobytes with as many pixels as the limit allows."""
    side = int(PIXELS**0.5)
    modes = ("RGB", "RGBA", "P", "L", "1")
    return [
        *(encode(Image.new(mode, (side, side))) for mode in modes),
        encode(Image.fromarray(np.zeros((side, side), np.uint16))),
        encode(Image.new("CMYK", (side, side)), "JPEG"),
        encode(Image.new("RGB", (side, side)), "WEBP"),
    ]


def peak(server: Served) -> int:
    """Peak resident memory of the process, in bytes."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_hostile_images_take_no_more_memory_than_the_decode_budget(launch: Callable[..., Served]) -> None:
    server = launch("--max-pixels", str(PIXELS), "--max-decode-mib", str(DECODING))
    bad = [data for data, _ in hostile().values()]

    with httpx.Client(base_url=server.url, timeout=120) as http, ThreadPoolExecutor(8) as pool:

        def embed(images: list[bytes]) -> list[str | None]:
            answer = http.post("/v1/embeddings", files=[("images", ("x", data)) for data in images])
            assert answer.status_code in (200, 207), answer.text
            return [item.get("error", {}).get("code") for item in answer.json()["embeddings"]]

        embed([png(1)] * 32)  # a full batch
        before = server.resident()
        batches = [largest(), *([png(1), data, png(2)] for data in bad), *([odd] for odd in unusual().values())]
        for _ in range(3):
            answers = list(pool.map(embed, batches))
        assert peak(server) - before < DECODING * MIB + SLACK
    assert set(answers[0]) == {None}  # at the limit, so accepted
    for codes in answers[1 : len(bad) + 1]:
        assert (codes[0], codes[2]) == (None, None)
        assert codes[1] in REFUSALS
