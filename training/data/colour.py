"""Colour jitter of whole batches: brightness, contrast, saturation and hue, one 3 x 3 matrix and one offset per image.

Shapes: B batch, 3 channels RGB of 0..255, H x W pixels.
"""

import math

import torch
from torch import Tensor

# Y (luma), I and Q (chroma) of RGB, the FCC's NTSC colour space; hue is an angle and saturation a length in (I, Q)
RGB_TO_YIQ = torch.tensor([[0.30, 0.59, 0.11], [0.5990, -0.2773, -0.3217], [0.2130, -0.5251, 0.3121]])
YIQ_TO_RGB = torch.linalg.inv(RGB_TO_YIQ)


def jitter(
    pixel_B3HW: Tensor, chance: float, strength: tuple[float, float, float, float], generator: torch.Generator
) -> Tensor:
    """Change the colours of each image with probability `chance`; images of 0..255 -> the same.

    `strength` holds the largest change of brightness, contrast, saturation (factors in [1 - s, 1 + s]) and hue (in
    [-s, s] of the colour circle). The random numbers are drawn on the CPU, whatever the device of the images.
    """
    batch = pixel_B3HW.shape[0]
    chosen = torch.rand(batch, generator=generator) < chance
    change_B4 = (2 * torch.rand(batch, 4, generator=generator) - 1) * torch.tensor(strength) * chosen[:, None]
    brightness, contrast, saturation = (1 + change_B4[:, :3]).unbind(1)
    return recolour(pixel_B3HW, brightness, contrast, saturation, change_B4[:, 3])


def recolour(
    pixel_B3HW: Tensor, brightness_B: Tensor, contrast_B: Tensor, saturation_B: Tensor, hue_B: Tensor
) -> Tensor:
    """Saturation and hue in YIQ, then brightness, then contrast about the mean luma; 1, 1, 1, 0 change nothing.

    The result is clipped to 0..255 once, at the end.
    """
    angle = 2 * math.pi * hue_B
    cos, sin = saturation_B * torch.cos(angle), saturation_B * torch.sin(angle)
    chroma_B33 = torch.zeros(len(hue_B), 3, 3)
    chroma_B33[:, 0, 0] = 1
    chroma_B33[:, 1, 1], chroma_B33[:, 1, 2], chroma_B33[:, 2, 1], chroma_B33[:, 2, 2] = cos, -sin, sin, cos
    colour_B33 = brightness_B[:, None, None] * (YIQ_TO_RGB @ chroma_B33 @ RGB_TO_YIQ)
    device = pixel_B3HW.device
    pixel_B3N = pixel_B3HW.flatten(2)
    mean_B31 = pixel_B3N.mean(2, keepdim=True)
    luma_B11 = RGB_TO_YIQ[:1].to(device) @ (colour_B33.to(device) @ mean_B31)
    contrast_B11 = contrast_B[:, None, None].to(device)
    new_B3N: Tensor = (contrast_B11 * colour_B33.to(device)) @ pixel_B3N + (1 - contrast_B11) * luma_B11
    return new_B3N.clamp(0, 255).view_as(pixel_B3HW)
