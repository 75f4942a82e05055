"""Vectors in requests and responses: base64 of float32, little-endian, or a .npy file.

NumPy is imported at the first vector, so that `from pan_reid import Client` does not load it.
"""

import base64
from io import BytesIO
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"


def encode_vector(vector: Vectors) -> str:
    """A (dim,) vector in base64."""
    import numpy as np

    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def encode_rows(vectors: Vectors) -> list[str]:
    """Each row of an (n, dim) array in base64; a (dim,) vector is one row."""
    import numpy as np

    return [encode_vector(row) for row in np.atleast_2d(vectors)]


def decode_npy(data: bytes) -> Vectors:
    """The array in a .npy file."""
    import numpy as np

    vectors: Vectors = np.load(BytesIO(data), allow_pickle=False)
    return vectors
