"""The network: backbone, part learning, part-aware attention, and the paper's variants by name."""

from training.model.config import VARIANTS, BackboneConfig, NetworkConfig
from training.model.explain import Explanation, explain
from training.model.network import PAN, PartClassifiers, PartFeatures
from training.model.normalise import Normalise, to_planes

__all__ = [
    "PAN",
    "VARIANTS",
    "BackboneConfig",
    "Explanation",
    "NetworkConfig",
    "Normalise",
    "PartClassifiers",
    "PartFeatures",
    "explain",
    "to_planes",
]
