"""Computes descriptors of crops with a PyTorch network, and evaluates data sets with them."""

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from bundle import Evaluation, ImageArray, InputSpec
from training.callbacks import ProgressCallback
from training.data import Crop, CropStore, ReidData, cameras, not_evaluable_reason, persons, prefetch
from training.distributed import World
from training.errors import DataError
from training.evaluation import Embedded, Labels, evaluate_embeddings
from training.model import PAN, Normalise, to_planes

Floats = npt.NDArray[np.float32]
Embed = Callable[[ImageArray], Floats]


def torch_embedder(
    network: PAN, spec: InputSpec, device: torch.device | str = "cpu", flip_averaging: bool = False
) -> Embed:
    """A function (B, H, W, 3) uint8 -> (B, D) float32 descriptors of unit length, in float32 throughout.

    `flip_averaging`: the normalised mean of the descriptors of a crop and of its mirror image, at twice the cost.
    """
    network = network.to(device).eval()
    normalise = Normalise(spec).to(device)

    def embed(images_BHW3: ImageArray) -> Floats:
        with torch.inference_mode():
            image = normalise(to_planes(torch.from_numpy(images_BHW3).to(device)))
            image = image.contiguous(memory_format=torch.channels_last)
            descriptor = network.describe(image)
            if flip_averaging:
                descriptor = F.normalize(descriptor + network.describe(image.flip(3)), dim=1)
        return np.asarray(descriptor.cpu().numpy(), np.float32)

    return embed


def embed_crops(
    embed: Embed, crops: Sequence[Crop], spec: InputSpec, batch: int = 64, progress: ProgressCallback | None = None
) -> Floats:
    """Descriptors of a list of crops, (n, D). The next batches are decoded while one is embedded."""
    store = CropStore(crops, spec, cache_gib=0)
    rows = []
    spans = [np.arange(start, min(start + batch, len(crops))) for start in range(0, len(crops), batch)]
    with closing(prefetch(store.get, spans)) as batches:
        for span, images in zip(spans, batches, strict=True):
            rows.append(embed(images))
            if progress:
                progress(int(span[-1]) + 1, len(crops))
    return np.concatenate(rows)


def evaluate_on(embed: Embed, data: ReidData, spec: InputSpec, progress: ProgressCallback | None = None) -> Evaluation:
    """Embed query and gallery of a data set and evaluate the ranking by the official protocol."""
    return evaluate_embeddings(*embed_data(embed, data, spec, progress))


def embed_data(embed: Embed, data: ReidData, spec: InputSpec, progress: ProgressCallback | None = None) -> Embedded:
    """Embed query and gallery of a data set, without junk.

    Raises DataError before any computation if nothing can be ranked.
    """
    data = data.without_junk()
    if why := not_evaluable_reason(data):
        raise DataError(f"{why}; nothing can be measured")
    return _split_rows(embed_crops(embed, [*data.query, *data.gallery], spec, progress=progress), data)


def embed_shard(embed: Embed, data: ReidData, spec: InputSpec, world: World) -> Embedded | None:
    """As `embed_data`, distributed over all processes of a run: rank 0 gets all rows, the others None."""
    data = data.without_junk()
    crops = [*data.query, *data.gallery]
    rows = world.gather_rows(embed_crops(embed, world.shard(crops), spec), len(crops))
    return None if rows is None else _split_rows(rows, data)


def _split_rows(rows: Floats, data: ReidData) -> Embedded:
    split = len(data.query)
    query = Labels(persons(data.query), cameras(data.query))
    gallery = Labels(persons(data.gallery), cameras(data.gallery))
    return Embedded(rows[:split], query, rows[split:], gallery, data.name)
