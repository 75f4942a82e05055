"""What colour alone achieves: the baseline a trained network has to beat."""

import numpy as np
import numpy.typing as npt

from bundle import ImageArray

STRIPES = 6
BINS = 8


def histogram_features(images_BHWC: ImageArray) -> npt.NDArray[np.float32]:
    """Joint RGB histograms (8 x 8 x 8) of six horizontal stripes: (B, 3072) float32 rows of unit length.

    Square roots of the counts are compared (the Hellinger kernel), which suits histograms better than the counts.
    """
    count, height, width, _ = images_BHWC.shape
    levels = (images_BHWC // (256 // BINS)).astype(np.int64)
    colour = (levels[..., 0] * BINS + levels[..., 1]) * BINS + levels[..., 2]
    stripe = np.arange(height) * STRIPES // height
    cell = colour + stripe[None, :, None] * BINS**3
    size = STRIPES * BINS**3
    counts = np.stack([np.bincount(cell[i].ravel(), minlength=size) for i in range(count)])
    return np.asarray(np.sqrt(counts / (height * width)), np.float32)
