"""A baseline without learning: colour histograms."""

import numpy as np
import numpy.typing as npt

from bundle import ImageArray

STRIPES = 6
BINS = 8
GREY = 110.0
SPREAD = 0.25  # of the weight around the middle column, as a share of the width


def histogram_features(images_BHWC: ImageArray) -> npt.NDArray[np.float32]:
    """Joint RGB histograms (8 x 8 x 8) of six horizontal stripes: (B, 3072) float32 rows of unit length.

    A grey-world correction removes much of the cameras' colour casts. The weight of a column falls with its distance
    from the middle, because the background is at the sides. Square roots of the counts are compared (Hellinger kernel).
    """
    count, height, width, _ = images_BHWC.shape
    pixels = images_BHWC.astype(np.float32)
    pixels *= GREY / np.maximum(pixels.mean((1, 2), keepdims=True), 1.0)
    level = np.minimum(pixels * (BINS / 256), BINS - 1).astype(np.int64)
    colour = (level[..., 0] * BINS + level[..., 1]) * BINS + level[..., 2]
    stripe = np.arange(height) * STRIPES // height
    cell = colour + stripe[None, :, None] * BINS**3
    middle = np.exp(-((((np.arange(width) + 0.5) / width - 0.5) / SPREAD) ** 2))
    weight = np.tile(middle, height)
    counts = np.stack([np.bincount(cell[i].ravel(), weight, STRIPES * BINS**3) for i in range(count)])
    return np.asarray(np.sqrt(counts / weight.sum()), np.float32)
