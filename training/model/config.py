"""Configuration of a network, and the paper's variants by name."""

from typing import Any, Literal

from pydantic import Field

from bundle.manifest import StrictModel


class BackboneConfig(StrictModel):
    """A ResNet, or a timm model in its place. `stride_at` and `stem_pool` exist because published weights differ."""

    depth: Literal[18, 34, 50] = 50
    width: float = Field(default=1.0, gt=0, description="factor on every stage's channels; the stem keeps 64")
    stride_at: Literal["conv2", "conv1"] = Field(
        default="conv2", description="where a bottleneck strides: conv2 (3x3, torchvision) or conv1 (1x1, Caffe)"
    )
    stem_pool: Literal["padded", "ceil"] = Field(
        default="padded", description="max-pool 3x3/2 with padding 1 (torchvision) or ceil mode without (Caffe)"
    )
    ibn: bool = Field(
        default=False,
        description="IBN-a: instance norm on half of the channels of each block's first norm, stages 1 to 3",
    )
    timm: str | None = Field(default=None, description="name of a timm model in place of the ResNet")
    timm_options: dict[str, Any] = Field(default={}, description="further arguments of timm.create_model")

    @property
    def name(self) -> str:
        """`resnet50`, `resnet50-ibn-a`, `resnet50-w0.5` where the width is not 1, or timm's name."""
        if self.timm:
            return self.timm
        return (
            f"resnet{self.depth}" + ("-ibn-a" if self.ibn else "") + ("" if self.width == 1.0 else f"-w{self.width:g}")
        )


class NetworkConfig(StrictModel):
    """A network: part extraction, fusion with middle layers of the backbone, embedding."""

    backbone: BackboneConfig = BackboneConfig()
    stripes: int | None = Field(
        default=None, ge=1, description="horizontal stripes as parts (1 = global pooling); None: learned parts"
    )
    scales: tuple[int, ...] = Field(default=(1, 2, 3), description="granularities of the learned parts")
    fusion: Literal["none", "pool_x3", "conv_add", "conv_concat", "pam_add", "pam_concat"] = "none"
    pam_dims: tuple[int, int, int] = Field(default=(256, 256, 256), description="D of the PAM on blocks 1, 2, 3")
    non_local: bool = False
    gem: bool = Field(
        default=False, description="one further part: the last feature map pooled by a generalised mean (GeM)"
    )
    embedding: int | None = Field(default=256, ge=1, description="numbers per part; None: the part vector as it is")
    bnneck: bool = False
    mask_affine: bool = Field(default=False, description="learned scale and shift in the masks' last batch norm")

    @property
    def parts(self) -> int:
        """I, the number of part vectors."""
        return self.local_parts + self.gem

    @property
    def local_parts(self) -> int:
        """Parts with a mask: I without the global one."""
        return self.stripes if self.stripes is not None else sum(self.scales)


VARIANTS: dict[str, NetworkConfig] = {
    "global_pool": NetworkConfig(stripes=1),
    "global_bnneck": NetworkConfig(stripes=1, embedding=None, bnneck=True),
    "stripes_3": NetworkConfig(stripes=3),
    "stripes_6": NetworkConfig(stripes=6),
    "stripes_8": NetworkConfig(stripes=8),
    "plm_1": NetworkConfig(scales=(1,)),
    "plm_12": NetworkConfig(scales=(1, 2)),
    "plm_1234": NetworkConfig(scales=(1, 2, 3, 4)),
    "baseline": NetworkConfig(),
    "baseline_w": NetworkConfig(fusion="pool_x3"),
    "conv_a": NetworkConfig(fusion="conv_add"),
    "conv_c": NetworkConfig(fusion="conv_concat"),
    "pan_a_128": NetworkConfig(fusion="pam_add", pam_dims=(128, 128, 128)),
    "pan_a": NetworkConfig(fusion="pam_add"),
    "pan_a_wide": NetworkConfig(fusion="pam_add", pam_dims=(256, 512, 1024)),
    "pan_c_128": NetworkConfig(fusion="pam_concat", pam_dims=(128, 128, 128)),
    "pan_c": NetworkConfig(fusion="pam_concat"),
    "pan_c_wide": NetworkConfig(fusion="pam_concat", pam_dims=(256, 512, 1024)),
    "nl": NetworkConfig(non_local=True),
    "pan_c_nl": NetworkConfig(fusion="pam_concat", non_local=True),
}
