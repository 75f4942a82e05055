"""Peak memory of decoding an image, compared with the bound that is computed from its header.

    python -m benchmarks.inference.decode_memory [--side 3000] [--json]

Each image is decoded in its own process, whose peak memory the kernel reports. The bound must not be below the measured
value, because the service divides its memory budget by the bound (`pan-serve run --max-decode-mib`).
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from bundle import ImageLimits, read_header

_LIMITS = ImageLimits(max_bytes=2**30, max_decode_bytes=2**40)

_DECODE = """
import sys
from pathlib import Path
from benchmarks.inference.decode_memory import _LIMITS, peak
from bundle import decode_image
data = Path(sys.argv[1]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
before = peak()
decode_image(data, _LIMITS)
print(peak() - before)
"""


def peak() -> int:
    """Peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def images(side: int) -> Iterator[tuple[str, str, Image.Image, dict[str, Any]]]:
    """Name, format, pixels and encoder options for each memory behaviour of the decoders."""
    coarse = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    colour = Image.fromarray(coarse).resize((side, side))
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "JPEG", "JPEG", colour, {}
    yield "JPEG, progressive, 4:4:4", "JPEG", colour, {"progressive": True, "subsampling": 0}
    yield "JPEG, progressive, turned", "JPEG", colour, {"progressive": True, "exif": turned}
    yield "JPEG, grey", "JPEG", colour.convert("L"), {}
    yield "JPEG, CMYK, progressive", "JPEG", colour.convert("CMYK"), {"progressive": True}
    yield "PNG", "PNG", colour, {}
    yield "PNG, alpha, turned", "PNG", colour.convert("RGBA"), {"exif": turned}
    yield "PNG, palette with transparency", "PNG", colour.quantize(16), {"transparency": 0}
    yield "PNG, 16-bit grey", "PNG", Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257), {}
    yield "WebP", "WEBP", colour, {}
    yield "WebP, lossless, turned", "WEBP", colour, {"lossless": True, "exif": turned}
    yield "BMP", "BMP", colour, {}


def measure(folder: Path, side: int) -> list[dict[str, Any]]:
    """Bytes per pixel of each kind of image: bound and measured."""
    rows = []
    for name, kind, image, options in images(side):
        path = folder / "image"
        image.save(path, kind, **options)
        bound = read_header(path.read_bytes(), _LIMITS).decode_bytes
        done = subprocess.run([sys.executable, "-c", _DECODE, str(path)], capture_output=True, text=True, check=True)
        rows.append({"image": name, "bound": bound / side**2, "measured": int(done.stdout) / side**2})
    return rows


def main(
    side: Annotated[int, typer.Option(min=500, help="Pixels per side.")] = 3000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the bound with the measured peak. The exit status is 1 if a peak exceeds its bound."""
    with TemporaryDirectory() as folder:
        rows = measure(Path(folder), side)
    if as_json:
        print(json.dumps(rows))
    else:
        print(f"{'bytes a pixel':32} {'bound':>8} {'measured':>9}")
        for row in rows:
            print(f"{row['image']:32} {row['bound']:8.1f} {row['measured']:9.1f}")
    sys.exit(any(row["measured"] > row["bound"] for row in rows))


if __name__ == "__main__":
    typer.run(main)
