"""Small data sets of coloured noise: enough to run everything, nothing to recognise."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_crop(path: Path, seed: int, height: int = 64, width: int = 32) -> None:
    """A blocky random picture."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(path)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and three test identities, two cameras, in the Market-1501 layout, with junk and a distractor."""
    root = tmp_path_factory.mktemp("market")
    seed = 0
    for person in range(1, 10):
        for camera in (1, 2):
            for frame in range(2):
                name = f"{person:04d}_c{camera}s1_{frame:06d}_00.jpg"
                folder = "bounding_box_train" if person <= 6 else ("query" if frame == 0 else "bounding_box_test")
                write_crop(root / folder / name, seed)
                seed += 1
    write_crop(root / "bounding_box_test" / "-1_c1s1_000000_00.jpg", 1000)
    write_crop(root / "bounding_box_test" / "0000_c1s1_000000_00.jpg", 1001)
    return root
