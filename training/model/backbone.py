"""ResNet with torchvision's parameter names, whose four block outputs are all kept.

Shapes at 384x128, full width, depth 50: X1 256x96x32, X2 512x48x16, X3 1024x24x8, X4 2048x24x8 (stride 1).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.model.config import BackboneConfig
from training.model.ibn import InstanceBatchNorm

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
STRIDES = (1, 2, 2, 1)  # the last stage keeps the resolution, as in PCB
STEM = 64


def _conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


def _conv1x1(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 1, stride, bias=False)


def _norm(channels: int, ibn: bool) -> nn.Module:
    return InstanceBatchNorm(channels) if ibn else nn.BatchNorm2d(channels)


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Module | None:
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(_conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (depth 18 and 34)."""

    expansion = 1

    def __init__(self, c_in: int, planes: int, stride: int, stride_at: str, ibn: bool) -> None:  # noqa: ARG002
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(c_in, planes, stride), _norm(planes, ibn)
        self.conv2, self.bn2 = _conv3x3(planes, planes), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(c_in, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (depth 50)."""

    expansion = 4

    def __init__(self, c_in: int, planes: int, stride: int, stride_at: str, ibn: bool) -> None:
        super().__init__()
        c_out = planes * self.expansion
        first, second = (stride, 1) if stride_at == "conv1" else (1, stride)
        self.conv1, self.bn1 = _conv1x1(c_in, planes, first), _norm(planes, ibn)
        self.conv2, self.bn2 = _conv3x3(planes, planes, second), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = _conv1x1(planes, c_out), nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """The trunk without its classifier. `between[l]` is applied to X1, X2, X3 on their way (non-local blocks)."""

    def __init__(self, config: BackboneConfig, between: Callable[[int], nn.Module] | None = None) -> None:
        """`between(channels)` makes the module that follows a middle block; None: nothing does."""
        super().__init__()
        block = Bottleneck if config.depth == 50 else BasicBlock
        self.conv1 = nn.Conv2d(3, STEM, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        ceil = config.stem_pool == "ceil"
        self.maxpool = nn.MaxPool2d(3, 2, padding=0 if ceil else 1, ceil_mode=ceil)
        self.channels: list[int] = []
        c_in = STEM
        for index, (count, stride) in enumerate(zip(LAYERS[config.depth], STRIDES, strict=True), start=1):
            planes = round(STEM * 2 ** (index - 1) * config.width)
            blocks = []
            for position in range(count):
                ibn = config.ibn and index < 4  # the last stage keeps what instance norm would remove
                blocks.append(block(c_in, planes, stride if position == 0 else 1, config.stride_at, ibn))
                c_in = planes * block.expansion
            setattr(self, f"layer{index}", nn.Sequential(*blocks))
            self.channels.append(c_in)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.between = nn.ModuleList(between(c) for c in self.channels[:3]) if between else None

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Normalised image -> [X1, X2, X3, X4], each (B, C_l, h_l, w_l)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image_B3HW))))
        blocks = []
        for index in range(4):
            x = getattr(self, f"layer{index + 1}")(x)
            if self.between is not None and index < 3:
                x = self.between[index](x)
            blocks.append(x)
        return blocks


class NonLocal(nn.Module):
    """Dot-product non-local block, keys and values down-sampled by 2, inner width C/2.

    Computed as theta ((phi / N)^T g): without a softmax the products may be taken in this order, and the N x N
    map of the literal form is never stored. phi is divided first, since the sum over N does not fit into float16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2)
        nn.init.zeros_(self.norm.weight)  # the block begins as the identity

    def forward(self, x_BChw: Tensor) -> Tensor:
        small = self.pool(x_BChw)
        theta_BKN = self.theta(x_BChw).flatten(2)
        phi_BKM, g_BKM = self.phi(small).flatten(2), self.g(small).flatten(2)
        mix_BKK = torch.matmul(g_BKM, phi_BKM.transpose(1, 2) / phi_BKM.shape[2])
        batch, _, height, width = x_BChw.shape
        y_BKhw = torch.matmul(mix_BKK, theta_BKN).view(batch, -1, height, width)
        return x_BChw + self.norm(self.out(y_BKhw))  # type: ignore[no-any-return]
