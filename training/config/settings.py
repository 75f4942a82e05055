"""Every setting of a training run: type, default, limits and meaning."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from bundle import InputSpec
from bundle.manifest import Strict
from training.config.names import unknown_name
from training.data.augment import AugmentConfig
from training.errors import ConfigError
from training.model.config import VARIANTS, BackboneConfig, NetworkConfig


class DataConfig(Strict):
    """Where the crops are and the size they are resized to."""

    path: Path | tuple[Path, ...] | None = Field(default=None, description="one data set, or [several] at once")
    test: Path | None = Field(default=None, description="evaluate on this data set instead of the (first) one")
    height: int = Field(default=384, ge=16, description="pixels")
    width: int = Field(default=128, ge=16, description="pixels")
    cache_gib: float = Field(
        default=4.0, ge=0, description="as many decoded crops as fit into this are kept in memory, in each process"
    )
    decode_threads: int = Field(default=2, ge=1, description="threads of each process that decode training crops")


class ModelConfig(Strict):
    """Which system, on which backbone, from which weights."""

    variant: str = Field(default="pan_c", description="a system of the paper; `pan-train inspect` lists them")
    depth: Literal[18, 34, 50] = Field(default=50, description="of the ResNet")
    width: float = Field(default=1.0, gt=0, description="factor on the backbone's channels")
    stride_at: Literal["conv2", "conv1"] = Field(
        default="conv2", description="which convolution of a bottleneck strides; as the weights were trained"
    )
    stem_pool: Literal["padded", "ceil"] = Field(
        default="padded", description="padding of the first pooling; as the weights were trained"
    )
    bnneck: bool | None = Field(
        default=None, description="triplet loss before the last batch norm, classification after; None: as the variant"
    )
    weights: str | None = Field(default=None, description='"imagenet", a path, or None for random initialisation')

    def network(self) -> NetworkConfig:
        """The network this describes. Raises ConfigError for an unknown variant."""
        if self.variant not in VARIANTS:
            raise ConfigError(f"model.variant: {unknown_name(self.variant, list(VARIANTS))}")
        config = VARIANTS[self.variant]
        backbone = BackboneConfig(
            depth=self.depth, width=self.width, stride_at=self.stride_at, stem_pool=self.stem_pool
        )
        bnneck = config.bnneck if self.bnneck is None else self.bnneck
        return config.model_copy(update={"backbone": backbone, "bnneck": bnneck})


class SamplerConfig(Strict):
    """P identities x K crops an update, over all processes and micro-batches together."""

    identities: int = Field(default=8, ge=2, description="P")
    crops: int = Field(default=4, ge=2, description="K, crops of each identity")


class LossConfig(Strict):
    """Weights of Eq. 5."""

    smoothing: float = Field(default=0.0, ge=0, lt=1, description="of the labels, in the cross-entropy")
    triplet: float = Field(default=1.0, ge=0, description="weight of the batch-hard triplet loss")
    margin: float | None = Field(default=0.3, gt=0, description="of the triplet loss; None: soft margin")
    orthogonality: float = Field(default=1.0, ge=0, description="weight of the overlap of the masks of a scale")


class OptimConfig(Strict):
    """Optimiser and schedule. `lr` is for new layers, `backbone_lr` for pre-trained ones."""

    name: Literal["sgd", "adamw"] = Field(default="sgd", description="the optimiser")
    lr: float = Field(default=0.1, gt=0, description="learning rate of new layers")
    backbone_lr: float = Field(default=0.01, ge=0, description="learning rate of the backbone where it is pre-trained")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(default=5e-4, ge=0, description="on every parameter")
    clip_norm: float | None = Field(
        default=5.0,
        gt=0,
        description="longest gradient of an update; SGD at lr 0.1 learns nothing without; None: no limit",
    )
    schedule: Literal["steps", "cosine"] = Field(default="steps", description="how lr falls after the warm-up")
    milestones: tuple[float, ...] = Field(
        default=(0.5, 0.75), description="fractions of the run at which lr falls to a tenth"
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="fraction of the run with a linear warm-up")
    iterations: int = Field(default=10_000, ge=1, description="updates of the weights")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="micro-batches that the P identities of an update are split into, to save memory; the triplet "
        "loss finds its hardest pairs, and batch norm its statistics, inside one micro-batch",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, such as 0.999; it is what is evaluated and saved",
    )
    freeze_backbone: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="fraction of the run at whose start the pre-trained layers and their batch norms stay as they are",
    )


class RunConfig(Strict):
    """Everything that decides a run's weights, and where they go."""

    preset: Literal["paper", "bot", "short"] = Field(default="paper", description="the defaults under all others")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    seed: int = Field(default=0, ge=0, description="of the weights, the batches and the augmentation")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the forward pass; float16 scales the loss so that gradients do not vanish"
    )
    compile: bool = Field(default=False, description="compile the training step (slow to start; needs a C++ compiler)")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of each process; None: all cores")
    evaluate_every: int = Field(
        default=0,
        ge=0,
        description="iterations between evaluations, of which the best by mAP is kept in best.safetensors; "
        "0: at the end only",
    )
    early_stop: int = Field(
        default=0, ge=0, description="evaluations without a better mAP after which the run ends; 0: never"
    )
    save_every: int = Field(default=200, ge=1, description="iterations between resumable states")

    def input_spec(self) -> InputSpec:
        """What the network of this run takes."""
        return InputSpec(height=self.data.height, width=self.data.width)
