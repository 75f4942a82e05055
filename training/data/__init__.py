"""Data sets, batches and augmentation."""

from training.data.augment import AugmentConfig, augment, augment_pixels
from training.data.crops import (
    Crop,
    ReidData,
    cameras,
    describe_excluded,
    limit_training,
    not_evaluable_reason,
    persons,
    trainable,
    unmatched,
)
from training.data.prefetch import prefetch
from training.data.readers import read_data, scan_data
from training.data.sampler import IdentitySampler
from training.data.store import CropStore

__all__ = [
    "AugmentConfig",
    "Crop",
    "CropStore",
    "IdentitySampler",
    "ReidData",
    "augment",
    "augment_pixels",
    "cameras",
    "describe_excluded",
    "limit_training",
    "not_evaluable_reason",
    "persons",
    "prefetch",
    "read_data",
    "scan_data",
    "trainable",
    "unmatched",
]
