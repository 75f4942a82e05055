"""Pictures as data URIs: crops, part masks over a crop, compatibility maps.

A map is stored at its own resolution, one pixel a position; the browser scales it up to the crop's size.
"""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bundle import ImageArray, ImageError, decode_image
from training.errors import DataError

Floats = npt.NDArray[np.float32]

CROP = (96, 192)  # maximum width and height of a crop in the page: twice the displayed size, for high-density screens
OVERLAY = 0.65  # opacity of a mask over its crop
# viridis, whose lightness rises evenly: from dark blue to the yellow of the paper's figures
COLOURS = (
    "440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725",
)  # fmt: skip


def crop_uri(path: Path) -> str:
    """A crop file, scaled down where it is large, as JPEG without its metadata. Raises DataError."""
    try:
        image = Image.fromarray(decode_image(path.read_bytes()))
    except (ImageError, OSError) as error:
        raise DataError(f"{path} cannot be shown: {error}; remove or replace it") from error
    image.thumbnail(CROP)
    return _uri(image, "JPEG")


def pixels_uri(image_HW3: ImageArray) -> str:
    """A crop at the network's input size, scaled down to at most CROP."""
    image = Image.fromarray(image_HW3)
    image.thumbnail(CROP)
    return _uri(image, "JPEG")


def mask_uri(mask_hw: Floats) -> str:
    """A mask as an overlay: dark blue at zero, yellow at its maximum."""
    largest = float(mask_hw.max())
    return _colour_uri(mask_hw / largest if largest > 0 else mask_hw, OVERLAY)


def map_uri(map_hw: Floats) -> str:
    """A compatibility map, from its minimum (dark blue) to its maximum (yellow)."""
    low, high = float(map_hw.min()), float(map_hw.max())
    return _colour_uri((map_hw - low) / ((high - low) or 1), 1.0)


def _colour_uri(share_hw: Floats, opacity: float) -> str:
    """Values of 0 to 1 as one pixel each."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in COLOURS])
    place_hw = share_hw * (len(COLOURS) - 1)
    rgb = [np.interp(place_hw, np.arange(len(COLOURS)), anchors[:, channel]) for channel in range(3)]
    rgba_hw4 = np.stack([*rgb, np.full(share_hw.shape, 255 * opacity)], -1)
    return _uri(Image.fromarray(np.rint(rgba_hw4).astype(np.uint8)), "PNG")


def _uri(image: Image.Image, kind: str) -> str:
    file = BytesIO()
    image.save(file, kind, **({"quality": 82} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
