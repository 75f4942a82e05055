"""Data sets, batches and augmentation."""

from training.data.augment import AugmentConfig, augment
from training.data.crops import Crop, ReidData, cameras, persons, trainable
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
    "cameras",
    "persons",
    "read_data",
    "scan_data",
    "trainable",
]
