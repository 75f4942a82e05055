"""Training and evaluation of PAN: data sets, network, training loop, measurements, and the command `pan-train`.

config/       settings, presets, loading           data/         data sets, batches, augmentation
model/        the network and its variants         trainer/      the training loop
evaluation/   ranking, verification, calibration   experiments/  tables of variants and their cost
report/       a run as one HTML page               synth/        synthetic people
cli/          the command line

Imports `bundle` only. Public: `training.config.load_config`, `training.trainer.Trainer`,
`training.checkpoint.load_checkpoint`, and the names in `__all__` of data, evaluation, model and synth.
"""

__all__: list[str] = []
