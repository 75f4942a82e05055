"""A plain PyTorch training loop without code of this project, as the reference of a benchmark.

ResNet-50 as torchvision has it, global pooling, a linear classifier; a Dataset over Pillow, a DataLoader, SGD.
"""

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut."""

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


def resnet50(classes: int, last_stride: int) -> nn.Module:
    """ResNet-50. `last_stride` is the stride of the last stage: 2 in torchvision, 1 in re-identification."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    c_in = 64
    for planes, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, last_stride)):
        for block in range(blocks):
            layers.append(Bottleneck(c_in, planes, stride if block == 0 else 1))
            c_in = 4 * planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, classes))


class Crops(Dataset[tuple[Tensor, int]]):
    """Decodes, resizes, flips and normalises each crop."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], height: int, width: int) -> None:
        self.paths, self.labels, self.size = paths, labels, (width, height)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB").resize(self.size, Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).float().div(255)
        return pixels.sub(MEAN).div(STD).permute(2, 0, 1).contiguous(), self.labels[index]


def plain_loop(
    crops: Crops,
    batch: int,
    workers: int,
    *,
    last_stride: int = 1,
    memory_format: torch.memory_format = torch.contiguous_format,
    bfloat16: bool = False,
) -> Iterator[float]:
    """Run one update per item. Yields the seconds of waiting for its batch."""
    loader = DataLoader(crops, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)
    model = resnet50(max(crops.labels) + 1, last_stride).train()
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    while True:
        batches = iter(loader)
        while True:
            start = time.perf_counter()
            found = next(batches, None)
            if found is None:
                break
            image, label = found
            waited = time.perf_counter() - start
            image = image.to(memory_format=memory_format)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(model(image), label)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield waited
