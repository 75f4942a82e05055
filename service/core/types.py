"""Types that several layers share.

Shapes: N rows, D numbers of a vector.
"""

import numpy as np
import numpy.typing as npt

from bundle import ImageError

Vectors = npt.NDArray[np.float32]  # (N, D) unit vectors, or (D,) for one
Image = bytes | ImageError  # the bytes of a picture, or why it was refused while it arrived
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
