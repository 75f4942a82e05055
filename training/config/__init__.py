"""The configuration of a training run: settings, presets, loading.

`load_config` merges a preset, a YAML file and `key=value` overrides into a `RunConfig`.
"""

from training.config.loading import load_config, save_config
from training.config.names import parse_precision, unknown_name
from training.config.presets import PRESETS
from training.config.settings import LossConfig, ModelConfig, OptimConfig, RunConfig, SamplerConfig

__all__ = [
    "PRESETS",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "SamplerConfig",
    "load_config",
    "parse_precision",
    "save_config",
    "unknown_name",
]
