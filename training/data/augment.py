"""The paper's augmentations on whole batches: flip, shift, zoom, crop, and random erasing.

Flip, shift, zoom and crop are one affine map per image, with the mean colour as border. The random generator depends
only on seed and step.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bundle.manifest import StrictModel


class AugmentConfig(StrictModel):
    """Strength of each augmentation; 0 disables it."""

    flip: float = Field(default=0.5, ge=0, le=1, description="probability of a mirror image")
    shift: float = Field(default=0.05, ge=0, lt=1, description="largest shift, as a fraction of each side")
    zoom: float = Field(default=0.1, ge=0, lt=1, description="largest zoom: factors in [1 / (1 + z), 1 + z]")
    erase: float = Field(default=0.5, ge=0, le=1, description="probability of erasing a rectangle")
    erase_area: tuple[float, float] = Field(default=(0.02, 0.3), description="least and largest erased fraction")


def augment(image_B3HW: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Normalised images (so that 0 is the mean colour) -> augmented images of the same shape.

    `generator` is a CPU generator, so that the random numbers do not depend on the device of the images.
    """
    return _erase(_warp(image_B3HW, config, generator), config, generator)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _warp(image: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    batch = image.shape[0]
    mirror = torch.where(_uniform(batch, 0, 1, generator) < config.flip, -1.0, 1.0)
    spread = math.log1p(config.zoom)
    scale = torch.exp(_uniform(batch, -spread, spread, generator))
    theta = torch.zeros(batch, 2, 3)  # output position in [-1, 1] -> input position
    theta[:, 0, 0] = mirror / scale
    theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = 2 * config.shift * (2 * torch.rand(batch, 2, generator=generator) - 1)
    grid = F.affine_grid(theta.to(image.device), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erase(image: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Random erasing (Zhong et al. 2017) with the mean colour; one rectangle of 0.3..3.3 times high as wide."""
    batch, _, height, width = image.shape
    chosen = _uniform(batch, 0, 1, generator) < config.erase
    area = _uniform(batch, *config.erase_area, generator) * height * width
    aspect = torch.exp(_uniform(batch, math.log(0.3), math.log(3.3), generator))
    tall = (area * aspect).sqrt().clamp(max=height)
    wide = (area / aspect).sqrt().clamp(max=width)
    top = torch.rand(batch, generator=generator) * (height - tall)
    left = torch.rand(batch, generator=generator) * (width - wide)
    row, column = torch.arange(height), torch.arange(width)
    in_rows = (row >= top[:, None]) & (row < (top + tall)[:, None])
    in_columns = (column >= left[:, None]) & (column < (left + wide)[:, None])
    hole = (chosen[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]).to(image.device)
    return image.masked_fill(hole[:, None], 0.0)
