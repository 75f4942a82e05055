"""Every setting of a training run: type, default, limits and meaning."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bundle import InputSpec
from bundle.manifest import StrictModel
from training.config.names import parse_precision, unknown_name
from training.data.augment import AugmentConfig
from training.errors import ConfigError
from training.model.config import VARIANTS, BackboneConfig, NetworkConfig

Precision = Annotated[
    Literal["float32", "bfloat16", "float16"],
    BeforeValidator(lambda text: parse_precision(str(text), ["float32", "bfloat16", "float16"])),
]


class DataConfig(StrictModel):
    """Where the crops are and the size they are resized to."""

    path: Path | tuple[Path, ...] | None = Field(
        default=None, description="training data set; several as a list: data.path='[A,B]'"
    )
    test: Path | None = Field(default=None, description="evaluate on this data set instead of the first of data.path")
    max_identities: int | None = Field(
        default=None, ge=2, description="train on this many identities, drawn at random; null: on all"
    )
    max_crops: int | None = Field(
        default=None, ge=2, description="train on at most this many crops of each identity; null: on all"
    )
    height: int = Field(default=384, ge=16, description="input height in pixels")
    width: int = Field(default=128, ge=16, description="input width in pixels")
    cache_gib: float = Field(default=4.0, ge=0, description="memory for decoded crops in each process, in GiB")
    decode_threads: int = Field(default=2, ge=1, description="decoding threads in each process")


class ModelConfig(StrictModel):
    """Variant of the network, backbone and initial weights."""

    variant: str = Field(
        default="pan_c", description="variant of the network; `pan-train settings` and `pan-train inspect` list them"
    )
    depth: Literal[18, 34, 50] = Field(default=50, description="layers of the ResNet backbone")
    width: float = Field(default=1.0, gt=0, description="factor on the backbone's channels")
    stride_at: Literal["conv2", "conv1"] = Field(
        default="conv2", description="convolution of a bottleneck that has the stride; must fit the pre-trained weights"
    )
    stem_pool: Literal["padded", "ceil"] = Field(
        default="padded", description="padding of the first pooling; must fit the pre-trained weights"
    )
    ibn: bool = Field(
        default=False,
        description="IBN-a: instance norm on half of the channels of each block's first norm, stages 1 to 3",
    )
    timm: str | None = Field(
        default=None, description="name of a timm model, such as convnext_tiny, in place of the ResNet; extra [timm]"
    )
    timm_options: dict[str, Any] | None = Field(
        default=None, description="further arguments of timm.create_model, such as {img_size: [384, 128]} for a Swin"
    )
    gem: bool = Field(
        default=False, description="one further part: the last feature map pooled by a generalised mean (GeM)"
    )
    mask_affine: bool = Field(
        default=False, description="learned scale and shift in the last batch norm of the part masks"
    )
    mask_shift: float = Field(
        default=0.0,
        description="initial shift of that batch norm (mask_affine=true); a larger one activates more positions",
    )
    embedding_scale: float = Field(
        default=1.0,
        gt=0,
        description="initial scale of the embedding's batch norm: a part embedding starts with the length "
        "sqrt(256) * embedding_scale",
    )
    bnneck: bool | None = Field(
        default=None,
        description="triplet loss before the last batch norm, classification after it; null: as the variant says",
    )
    weights: str | None = Field(
        default=None,
        description="weights to start from: imagenet, a run of pan-train or its checkpoint, or a file with a backbone; "
        "null: random. model.init is another name of this setting",
    )

    def network(self) -> NetworkConfig:
        """The configuration of the network. Raises ConfigError for an unknown variant."""
        if self.variant not in VARIANTS:
            raise ConfigError(f"model.variant: {unknown_name(self.variant, list(VARIANTS))}")
        config = VARIANTS[self.variant]
        backbone = BackboneConfig(
            depth=self.depth,
            width=self.width,
            stride_at=self.stride_at,
            stem_pool=self.stem_pool,
            ibn=self.ibn,
            timm=self.timm,
            timm_options=self.timm_options or {},
        )
        if self.timm and backbone != BackboneConfig(timm=self.timm, timm_options=backbone.timm_options):
            raise ConfigError(
                "model.timm replaces the ResNet; leave model.depth, model.width, model.stride_at, model.stem_pool and "
                "model.ibn as they are"
            )
        bnneck = config.bnneck if self.bnneck is None else self.bnneck
        return config.model_copy(
            update={"backbone": backbone, "bnneck": bnneck, "gem": self.gem, "mask_affine": self.mask_affine}
        )


class SamplerConfig(StrictModel):
    """P identities x K crops an update, over all processes and micro-batches together."""

    identities: int = Field(default=8, ge=2, description="P, identities in a batch")
    crops: int = Field(default=4, ge=2, description="K, crops of each identity in a batch")


class LossConfig(StrictModel):
    """Loss of Eq. 5: weights and parameters of its terms."""

    smoothing: float = Field(default=0.0, ge=0, lt=1, description="label smoothing of the cross-entropy")
    triplet: float = Field(default=1.0, ge=0, description="weight of the batch-hard triplet loss")
    margin: float | None = Field(default=0.3, gt=0, description="margin of the triplet loss; null: soft margin")
    circle: float = Field(default=0.0, ge=0, description="weight of the circle loss on normalised descriptors; 0: none")
    circle_margin: float = Field(default=0.25, gt=0, lt=1, description="relaxation m of the circle loss")
    circle_scale: float = Field(default=64.0, gt=0, description="scale (gamma) of the circle loss")
    triplet_features: Literal["raw", "unit"] = Field(
        default="raw", description="descriptors of the triplet loss: as they are, or scaled to unit length"
    )
    orthogonality: float = Field(
        default=1.0, ge=0, description="weight of the penalty on overlapping masks of one scale"
    )
    orthogonality_form: Literal["raw", "unit"] = Field(
        default="unit", description="rows of M in Eq. 4: the masks as they are, or scaled to unit length"
    )


class OptimConfig(StrictModel):
    """Optimiser and schedule. `lr` is for new layers, `backbone_lr` for pre-trained ones."""

    name: Literal["sgd", "adamw"] = Field(default="sgd", description="the optimiser")
    lr: float = Field(default=0.1, gt=0, description="learning rate of new layers")
    backbone_lr: float = Field(default=0.01, ge=0, description="learning rate of a pre-trained backbone")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay on every parameter")
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest gradient norm of an update; null: no clipping"
    )
    schedule: Literal["steps", "cosine"] = Field(default="steps", description="decay of lr after the warm-up")
    milestones: tuple[float, ...] = Field(
        default=(0.5, 0.75), description="fractions of the run at which lr is divided by 10 (schedule=steps)"
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="fraction of the run with linear warm-up")
    warmup_start: float = Field(
        default=0.0, ge=0, le=1, description="factor on the learning rates at the start of the warm-up"
    )
    iterations: int = Field(default=10_000, ge=1, description="number of updates of the weights")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="micro-batches of an update (gradient accumulation); the P identities are split between them, and "
        "triplet mining and batch norm see one micro-batch at a time",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, such as 0.999; the average is evaluated and saved",
    )
    freeze_backbone: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="fraction of the run, from its start, in which pre-trained layers are frozen",
    )


class RunConfig(StrictModel):
    """All settings of a run."""

    preset: Literal["paper", "bot", "short", "finetune", "strong"] = Field(
        default="paper", description="set of defaults; files and overrides stand above it"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    seed: int = Field(default=0, ge=0, description="seed of weights, batches and augmentation")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    precision: Precision = Field(
        default="float32",
        description="number format of the forward pass; fp32, bf16 and fp16 are accepted; float16 scales the loss so "
        "that gradients do not vanish",
    )
    compile: bool = Field(default=False, description="compile the training step (slow to start; needs a C++ compiler)")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of each process; null: all cores")
    evaluate_every: int = Field(
        default=0,
        ge=0,
        description="iterations between evaluations; the best network by mAP is kept in best.safetensors; "
        "0: evaluate at the end only",
    )
    early_stop: int = Field(
        default=0, ge=0, description="stop after this many evaluations without a better mAP; 0: never"
    )
    gradients_every: int = Field(
        default=100,
        ge=0,
        description="iterations between measurements of each loss term's own gradient norm, each as slow as two or "
        "three backward passes; not measured with compile=true; 0: never",
    )
    save_every: int = Field(default=200, ge=1, description="iterations between saved states for resuming")

    def input_spec(self) -> InputSpec:
        """Input size and normalisation of the network."""
        return InputSpec(height=self.data.height, width=self.data.width)
