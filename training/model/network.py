"""PAN and the methods it is compared with, built from a `NetworkConfig`.

    image -> ResNet -> X1 X2 X3 X4 -> masks on X4 -> part vectors P -> fusion with X1..X3 -> embedding per part

Shapes: B batch, I parts, C channels, N positions, E numbers per part.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.errors import ConfigError
from training.model.attention import PartAttention
from training.model.backbone import NonLocal, ResNet
from training.model.config import NetworkConfig
from training.model.parts import GeneralisedMean, LearnedParts, Stripes, pool_parts
from training.model.timm_backbone import TimmBackbone


@dataclass(frozen=True, slots=True)
class PartFeatures:
    """Output of a forward pass for the losses."""

    metric_BIE: Tensor  # where the triplet loss looks: before the batch norm with BNNeck, else after it
    embedding_BIE: Tensor  # what is classified and, concatenated and L2-normalised, what retrieval uses
    mask_BIN: Tensor  # spatial masks, all >= 0; a global part has none


class PartEmbedding(nn.Module):
    """Per part its own linear map to E numbers, then batch norm; E = None keeps the part vector."""

    def __init__(self, parts: int, channels: int, size: int | None, bnneck: bool) -> None:
        super().__init__()
        self.size = size or channels
        self.weight = nn.Parameter(torch.empty(parts, self.size, channels)) if size else None
        if self.weight is not None:
            nn.init.normal_(self.weight, std=channels**-0.5)
        self.norm = nn.BatchNorm1d(parts * self.size)
        self.bnneck = bnneck
        if bnneck:
            self.norm.bias.requires_grad_(False)

    def forward(self, part_BCI: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, I) -> metric and embedding features, both (B, I, E)."""
        raw_IBC = part_BCI.permute(2, 0, 1)
        if self.weight is not None:
            raw_IBC = torch.matmul(raw_IBC, self.weight.transpose(1, 2))
        raw_BIE = raw_IBC.transpose(0, 1)
        embedding_BIE = self.norm(raw_BIE.flatten(1).float()).view(-1, raw_BIE.shape[1], self.size)
        return (raw_BIE if self.bnneck else embedding_BIE), embedding_BIE


class ConvFusion(nn.Module):
    """The paper's convolutional connection: X_l through (1x1 conv, BN, ReLU) steps until it meets X4's resolution."""

    def __init__(self, channels: list[int], widen: bool) -> None:
        """`widen`: channels double up to X4's, for addition; otherwise they stay, for concatenation."""
        super().__init__()
        self.paths = nn.ModuleList()
        for block in range(3):
            steps: list[nn.Module] = []
            c_in = channels[block]
            for step in range(block + 1, 4):
                c_out = channels[step] if widen else c_in
                stride = 2 if step < 3 else 1  # X3 and X4 share one resolution
                steps += [nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
                c_in = c_out
            self.paths.append(nn.Sequential(*steps))

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        """[X1, X2, X3] -> three maps at X4's resolution."""
        return [path(x) for path, x in zip(self.paths, blocks, strict=True)]


class PAN(nn.Module):
    """A person re-identification network with I part embeddings."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        c1, c2, c3, c4 = channels = self.backbone.channels
        self.parts: nn.Module = (
            Stripes(config.stripes) if config.stripes else LearnedParts(c4, config.scales, config.mask_affine)
        )
        self.gem = GeneralisedMean() if config.gem else None
        part_channels = c4
        self.pams = nn.ModuleList()  # one for each middle block, where the variant has part-aware attention
        match config.fusion:
            case "none":
                pass
            case "pool_x3":
                part_channels += c3
            case "conv_add":
                self.convs = ConvFusion(channels, widen=True)
            case "conv_concat":
                self.convs = ConvFusion(channels, widen=False)
                part_channels += c1 + c2 + c3
            case "pam_add" | "pam_concat":
                concat = config.fusion == "pam_concat"
                self.pams = nn.ModuleList(
                    PartAttention(c4, c, dim, c if concat else c4)
                    for c, dim in zip(channels[:3], config.pam_dims, strict=True)
                )
                part_channels += c1 + c2 + c3 if concat else 0
        self.embedding = PartEmbedding(config.parts, part_channels, config.embedding, config.bnneck)
        self.projection: nn.Linear | None = None  # of descriptors, set by `project`

    @property
    def embedding_size(self) -> int:
        """Numbers in a descriptor: I * E (1,536 for the paper's six parts), or fewer behind a projection."""
        return self.projection.out_features if self.projection else self.config.parts * self.embedding.size

    def project(self, weight_KD: Tensor, bias_K: Tensor) -> None:
        """Project descriptors to K dimensions from now on: W x + b, normalised to unit length."""
        self.projection = nn.Linear(weight_KD.shape[1], weight_KD.shape[0])
        self.projection.load_state_dict({"weight": weight_KD, "bias": bias_K})

    def pooled_parts(self, blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """[X1..X4] -> P, the part vectors (B, C4, I) the queries of PAM, and masks (B, I, N).

        The mask of a global part is 1 everywhere.
        """
        *middle, x4 = blocks
        mask_BIN, channel_BCI = self.parts(x4)
        if self.config.fusion == "conv_add":
            x4 = x4 + sum(self.convs(middle))
        part_BCI = pool_parts(x4, mask_BIN)
        if channel_BCI is not None:
            part_BCI = part_BCI * channel_BCI
        if self.gem is not None:
            part_BCI = torch.cat([part_BCI, self.gem(x4)], 2)
            mask_BIN = torch.cat([mask_BIN, torch.ones_like(mask_BIN[:, :1])], 1)
        return part_BCI, mask_BIN

    def part_vectors(self, blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """[X1..X4] -> fused part vectors (B, C, I) and masks (B, I, N)."""
        part_BCI, mask_BIN = self.pooled_parts(blocks)
        middle, fusion = blocks[:3], self.config.fusion
        if fusion == "pool_x3":
            part_BCI = torch.cat([part_BCI, pool_parts(middle[2], mask_BIN)], 1)
        elif fusion == "conv_concat":
            part_BCI = torch.cat([part_BCI, *(pool_parts(x, mask_BIN) for x in self.convs(middle))], 1)
        elif fusion in ("pam_add", "pam_concat"):
            warped = [pam(part_BCI, x) for pam, x in zip(self.pams, middle, strict=True)]
            part_BCI = torch.cat([part_BCI, *warped], 1) if fusion == "pam_concat" else part_BCI + sum(warped)
        return part_BCI, mask_BIN

    def forward(self, image_B3HW: Tensor) -> PartFeatures:
        """Normalised images (B, 3, H, W) -> features for the losses."""
        part_BCI, mask_BIN = self.part_vectors(self.backbone(image_B3HW))
        metric_BIE, embedding_BIE = self.embedding(part_BCI)
        return PartFeatures(metric_BIE, embedding_BIE, mask_BIN[:, : self.config.local_parts])

    def describe(self, image_B3HW: Tensor) -> Tensor:
        """Normalised images -> descriptors (B, D) of unit length, float32."""
        descriptor_BD = _unit(self(image_B3HW).embedding_BIE.flatten(1).float())
        return descriptor_BD if self.projection is None else _unit(self.projection(descriptor_BD))

    def parameter_count(self) -> int:
        """Parameters that are exported; training classifiers are not part of this module."""
        return sum(parameter.numel() for parameter in self.parameters())


def _backbone(config: NetworkConfig) -> ResNet | TimmBackbone:
    if config.backbone.timm is None:
        return ResNet(config.backbone, NonLocal if config.non_local else None)
    if config.non_local:
        raise ConfigError(
            "non-local blocks stand between the stages of a ResNet; choose a variant without, or no model.timm"
        )
    backbone = TimmBackbone(config.backbone)
    if config.fusion in ("pool_x3", "conv_add", "conv_concat") and backbone.strides != [4, 8, 16, 16]:
        raise ConfigError(
            f"{config.fusion} joins block 3 with block 4 at strides 4, 8, 16, 16, but {config.backbone.name} has "
            f"{backbone.strides}; set model.timm_options='{{output_stride: 16}}' or choose another variant"
        )
    return backbone


def _unit(row_BD: Tensor) -> Tensor:
    """Normalise rows to length 1. F.normalize would export an operation on the input shape, which TensorRT rejects."""
    length_B1: Tensor = torch.linalg.vector_norm(row_BD, dim=1, keepdim=True)
    return row_BD / length_B1.clamp_min(1e-12)


class PartClassifiers(nn.Module):
    """One linear classifier per part; used in training only. With BNNeck it has no bias."""

    def __init__(self, parts: int, size: int, identities: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, identities, size))
        nn.init.normal_(self.weight, std=0.001)
        self.bias = nn.Parameter(torch.zeros(parts, 1, identities)) if bias else None

    def forward(self, embedding_BIE: Tensor) -> Tensor:
        """(B, I, E) -> logits (I, B, identities)."""
        logit_IBK = torch.matmul(embedding_BIE.transpose(0, 1), self.weight.transpose(1, 2))
        return logit_IBK if self.bias is None else logit_IBK + self.bias
