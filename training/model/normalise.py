"""Normalisation of pixels with mean and standard deviation."""

import torch
from torch import Tensor, nn

from bundle import InputSpec


class Normalise(nn.Module):
    """(x / 255 - mean) / std per channel, on images of 0..255."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Float images of 0..255, (B, 3, H, W) -> normalised, same shape."""
        return image_B3HW * self.get_buffer("scale") + self.get_buffer("shift")


def to_planes(image_BHW3: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) as in the bundle -> float32 (B, 3, H, W), still 0..255."""
    return image_BHW3.permute(0, 3, 1, 2).float()
