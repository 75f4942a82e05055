"""Training: the loop over batches, one update of the weights, losses, schedule, logging, resume.

`Trainer` trains one run in one folder; the constants name the files that it writes there.
"""

from training.trainer.trainer import BEST, CONFIG, STATE, WEIGHTS, Trainer

__all__ = ["BEST", "CONFIG", "STATE", "WEIGHTS", "Trainer"]
