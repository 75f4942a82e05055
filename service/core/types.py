"""Types that several layers share. N is the number of rows, D the dimension of a vector."""

import numpy as np
import numpy.typing as npt

from bundle import ImageError

Vectors = npt.NDArray[np.float32]  # (N, D) unit vectors, or one of shape (D,)
Image = bytes | ImageError  # the bytes of an image, or the error that its parsing raised
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
