"""Initial values of new layers that the configuration sets."""

from torch import nn

from training.config import ModelConfig
from training.model import PAN
from training.model.parts import LearnedParts


def initialise(network: PAN, config: ModelConfig) -> None:
    """Set the scale of the embedding's batch norm, and the shift of the masks' last batch norm if it is learned."""
    nn.init.constant_(network.embedding.norm.weight, config.embedding_scale)
    if config.mask_affine and isinstance(network.parts, LearnedParts):
        network.parts.shift_masks(config.mask_shift)
