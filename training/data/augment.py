"""Augmentation of whole batches: the paper's flip, shift, zoom, crop and random erasing, and changes of colour.

Flip, shift, zoom and crop are one affine map per image, with the mean colour as border. The random generator depends
only on seed and step.
"""

import math
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bundle.manifest import StrictModel
from training.data.colour import jitter
from training.data.trivial_augment import trivial_augment

Change = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(StrictModel):
    """Strength of each augmentation; 0 disables it."""

    flip: float = Field(default=0.5, ge=0, le=1, description="probability of a mirror image")
    shift: float = Field(default=0.05, ge=0, lt=1, description="largest shift, as a fraction of each side")
    zoom: float = Field(default=0.1, ge=0, lt=1, description="largest zoom: factors in [1 / (1 + z), 1 + z]")
    erase: float = Field(default=0.5, ge=0, le=1, description="probability of erasing a rectangle")
    erase_area: tuple[float, float] = Field(default=(0.02, 0.3), description="least and largest erased fraction")
    jitter: float = Field(default=0.0, ge=0, le=1, description="probability of colour jitter")
    jitter_strength: tuple[Change, Change, Change, Change] = Field(
        default=(0.15, 0.15, 0.1, 0.1),
        description="largest change of brightness, contrast, saturation (as factors) and hue (of the colour circle)",
    )
    trivial: float = Field(
        default=0.0, ge=0, le=1, description="probability of one random operation of TrivialAugment (RandAugment's set)"
    )


def augment_pixels(
    pixel_B3HW: Tensor, normalise: Callable[[Tensor], Tensor], config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Images of 0..255 -> normalised, augmented images of the same shape, resampled once.

    `generator` is a CPU generator, so that the random numbers do not depend on the device of the images.
    """
    movement_B33 = None
    if config.trivial:
        pixel_B3HW, movement_B33 = trivial_augment(pixel_B3HW, config.trivial, generator)
    if config.jitter:
        pixel_B3HW = jitter(pixel_B3HW, config.jitter, config.jitter_strength, generator)
    return augment(normalise(pixel_B3HW), config, generator, movement_B33)


def augment(
    image_B3HW: Tensor, config: AugmentConfig, generator: torch.Generator, movement_B33: Tensor | None = None
) -> Tensor:
    """Normalised images (so that 0 is the mean colour) -> images moved and erased, of the same shape.

    `movement_B33` maps positions in [-1, 1] after further movements to positions before them.
    """
    return _erase(_warp(image_B3HW, config, generator, movement_B33), config, generator)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _warp(
    image: Tensor, config: AugmentConfig, generator: torch.Generator, movement_B33: Tensor | None = None
) -> Tensor:
    batch = image.shape[0]
    mirror = torch.where(_uniform(batch, 0, 1, generator) < config.flip, -1.0, 1.0)
    spread = math.log1p(config.zoom)
    scale = torch.exp(_uniform(batch, -spread, spread, generator))
    theta = torch.zeros(batch, 2, 3)  # output position in [-1, 1] -> input position
    theta[:, 0, 0] = mirror / scale
    theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = 2 * config.shift * (2 * torch.rand(batch, 2, generator=generator) - 1)
    if movement_B33 is not None:
        theta = movement_B33[:, :2] @ torch.cat([theta, theta.new_tensor([[[0, 0, 1]]]).expand(batch, 1, 3)], 1)
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
