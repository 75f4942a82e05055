"""TrivialAugment (Müller and Hutter 2021) on whole batches: one random operation of random strength for an image.

The operations and their strengths are those of RandAugment (Cubuk et al. 2020): identity, auto contrast, equalise,
rotate, solarise, posterise, colour, contrast, brightness, sharpness, shear and translate. Each is the operation of the
same name in Pillow. Rotate, shear and translate are returned as matrices, so that the caller's only resampling
applies them.

Shapes: B batch, 3 channels RGB of 0..255, H x W pixels.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
ROTATION, SHEAR, TRANSLATION = math.radians(30), 0.3, 0.3  # largest; translation as a fraction of a side
SCALE = 0.9  # largest change of a factor of colour, contrast, brightness and sharpness


def _grey(pixel: Tensor) -> Tensor:
    weight = pixel.new_tensor(LUMA).view(1, 3, 1, 1)
    return (pixel * weight).sum(1, keepdim=True)


def _blend(degenerate: Tensor, pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Pillow's enhancement: factor 0 gives the degenerate image, 1 the original; factors are in [1 - s, 1 + s]."""
    factor = 1 + SCALE * signed_B.view(-1, 1, 1, 1)
    return torch.lerp(degenerate, pixel, factor).clamp(0, 255)


def colour(pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Blend with the grey image."""
    return _blend(_grey(pixel).expand_as(pixel), pixel, signed_B)


def contrast(pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Blend with the mean grey."""
    return _blend(_grey(pixel).mean((2, 3), keepdim=True).expand_as(pixel), pixel, signed_B)


def brightness(pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(torch.zeros_like(pixel), pixel, signed_B)


def sharpness(pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Blend with the image smoothed by a 3 x 3 kernel; the border is not smoothed."""
    kernel = pixel.new_ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = pixel.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(pixel, kernel / 13, groups=3)
    return _blend(smooth, pixel, signed_B)


def posterise(pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Keep the 8 to 4 highest bits of each value."""
    step = 2 ** (4 * signed_B.abs()).round().view(-1, 1, 1, 1)
    return (pixel / step).floor() * step


def solarise(pixel: Tensor, signed_B: Tensor) -> Tensor:
    """Invert the values from a threshold of 256 to 0 on."""
    threshold = 256 * (1 - signed_B.abs()).view(-1, 1, 1, 1)
    return torch.where(pixel >= threshold, 255 - pixel, pixel)


def auto_contrast(pixel: Tensor, signed_B: Tensor) -> Tensor:  # noqa: ARG001
    """Stretch each channel to 0..255; a channel of one value stays."""
    low, high = pixel.amin((2, 3), keepdim=True), pixel.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, ((pixel - low) * 255 / spread.clamp_min(1)).floor(), pixel)


def equalise(pixel: Tensor, signed_B: Tensor) -> Tensor:  # noqa: ARG001
    """Equalise each channel's histogram; a channel of one value stays."""
    level_BCN = pixel.flatten(2).long()
    count_BCL = torch.zeros(*level_BCN.shape[:2], 256, dtype=torch.long, device=pixel.device)
    count_BCL.scatter_add_(2, level_BCN, torch.ones_like(level_BCN))
    last = count_BCL.gather(2, level_BCN.amax(2, keepdim=True))
    step = (level_BCN.shape[2] - last) // 255
    before = count_BCL.cumsum(2) - count_BCL
    table = ((before + step // 2) // step.clamp_min(1)).clamp(max=255)
    return torch.where(step > 0, table.gather(2, level_BCN), level_BCN).to(pixel.dtype).view_as(pixel)


RECOLOURING: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    auto_contrast,
    equalise,
    solarise,
    posterise,
    colour,
    contrast,
    brightness,
    sharpness,
)
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = 1 + len(RECOLOURING) + len(MOVING)  # the first is the identity


def trivial_augment(pixel_B3HW: Tensor, chance: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Apply one operation to each image with probability `chance`; images hold whole numbers of 0..255.

    Returns the images with their colours changed, and matrices (B, 3, 3) on the CPU that map an output position in
    [-1, 1] to an input position. The random numbers are drawn on the CPU, whatever the device of the images.
    """
    batch, _, height, width = pixel_B3HW.shape
    chosen = torch.rand(batch, generator=generator) < chance
    operation_B = torch.randint(OPERATIONS, (batch,), generator=generator) * chosen
    signed_B = 2 * torch.rand(batch, generator=generator) - 1
    for number, recolour in enumerate(RECOLOURING, start=1):
        index = (operation_B == number).nonzero()[:, 0]
        if len(index):
            there = index.to(pixel_B3HW.device)
            changed = recolour(pixel_B3HW[there], signed_B[index].to(pixel_B3HW.device))
            pixel_B3HW = pixel_B3HW.index_copy(0, there, changed)
    moving_B = operation_B - len(RECOLOURING) - 1
    return pixel_B3HW, movement(moving_B, signed_B, height / width)


def movement(moving_B: Tensor, signed_B: Tensor, aspect: float) -> Tensor:
    """The matrices (B, 3, 3) of `MOVING`[i]; the identity where i is negative. `aspect`: height / width.

    Angles hold in pixels, so the entries off the diagonal are scaled by the ratio of the sides.
    """

    def strength(name: str, largest: float) -> Tensor:
        return torch.where(moving_B == MOVING.index(name), largest * signed_B, 0.0)

    matrix_B33 = torch.eye(3).repeat(len(moving_B), 1, 1)
    angle = strength("rotate", ROTATION)
    matrix_B33[:, 0, 0] = matrix_B33[:, 1, 1] = torch.cos(angle)
    matrix_B33[:, 0, 1] = (strength("shear_x", SHEAR) - torch.sin(angle)) * aspect
    matrix_B33[:, 1, 0] = (strength("shear_y", SHEAR) + torch.sin(angle)) / aspect
    matrix_B33[:, 0, 2] = 2 * strength("translate_x", TRANSLATION)
    matrix_B33[:, 1, 2] = 2 * strength("translate_y", TRANSLATION)
    return matrix_B33
