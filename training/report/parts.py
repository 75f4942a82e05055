"""Where the parts of some crops lie, and what they ask of the middle blocks: the paper's figures 5 and 6."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.data import Crop, CropStore
from training.model import PAN, NetworkConfig, Normalise, explain, to_planes
from training.model.explain import untrained_attention
from training.report.gather import Run
from training.report.pictures import Floats, map_uri, mask_uri, pixels_uri

CROPS = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Part j of scale i."""

    scale: int
    index: int

    @property
    def name(self) -> str:
        """`2.1`."""
        return f"{self.scale}.{self.index}"


@dataclass(frozen=True, slots=True)
class PartPictures:
    """One crop and its maps, as data URIs, in the order of the parts."""

    crop: Crop
    picture: str
    masks: list[str]
    live: list[int]  # per cent of a mask's positions that are above zero
    compatibility: list[list[str]]  # of middle block 1, 2, 3; without PAM, those of an untrained one


def part_names(network: NetworkConfig) -> list[Part]:
    """The learned parts, in the network's order."""
    return [Part(scale, index) for scale in network.scales for index in range(1, scale + 1)]


def part_pictures(run: Run, crops: Sequence[Crop]) -> list[PartPictures]:
    """Masks and maps of CROPS crops, evenly over `crops`. Raises DataError for a crop that cannot be read."""
    chosen = [crops[i] for i in np.unique(np.linspace(0, len(crops) - 1, CROPS).astype(int))]
    images_BHW3 = CropStore(chosen, run.card.input, cache_gib=0).get(range(len(chosen)))
    masks, maps = _explain(run.network, Normalise(run.card.input), torch.from_numpy(images_BHW3))
    return [
        PartPictures(
            crop=crop,
            picture=pixels_uri(images_BHW3[index]),
            masks=[mask_uri(mask_hw) for mask_hw in masks[index]],
            live=[round(100 * float((mask_hw > 0).mean())) for mask_hw in masks[index]],
            compatibility=[[map_uri(map_hw) for map_hw in block[index]] for block in maps],
        )
        for index, crop in enumerate(chosen)
    ]


def _explain(network: PAN, normalise: Normalise, images_BHW3: torch.Tensor) -> tuple[Floats, list[Floats]]:
    with torch.inference_mode():
        pams = None if len(network.pams) else untrained_attention(network)
        found = explain(network, normalise(to_planes(images_BHW3)), pams)
    return found.mask_BIhw.numpy(), [map_BIhw.numpy() for map_BIhw in found.compatibility]
