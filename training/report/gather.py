"""Reads the folder of a run: network, card, settings and the logs of the training."""

import csv
from dataclasses import dataclass
from pathlib import Path

from training.checkpoint import Card, load_checkpoint
from training.config import RunConfig, load_config
from training.data import ReidData, not_evaluable_reason, read_data
from training.errors import ConfigError, DataError
from training.model import PAN
from training.trainer import CONFIG, STATE, WEIGHTS
from training.trainer.monitor import EVALUATIONS, METRICS

Series = dict[str, list[float]]
"""Columns of numbers by name, all of one length."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    folder: Path
    network: PAN
    card: Card
    config: RunConfig
    metrics: Series
    evaluations: Series  # empty if the run was only evaluated at its end

    @property
    def has_learned_parts(self) -> bool:
        """Whether the parts were learned (PLM), not fixed stripes."""
        return self.card.network.stripes is None


def read_run(folder: Path) -> Run:
    """Read a run. Raises ConfigError if the folder has none, CheckpointError if its weights do not fit."""
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it has no {CONFIG}; `pan-train run` writes one")
    if not (folder / WEIGHTS).exists() and (folder / STATE).exists():
        raise ConfigError(f"the run in {folder} is not finished; continue it with `pan-train resume {folder}`")
    network, card = load_checkpoint(folder)
    series = (_read_series(folder / name) for name in (METRICS, EVALUATIONS))
    return Run(folder.resolve(), network, card, load_config(folder / CONFIG), *series)


def _read_series(path: Path) -> Series:
    """A table of numbers; empty if there is none. An incomplete last line of a killed run is dropped."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream)
        rows = [row for row in table if None not in row.values()]
    try:
        return {name: [float(row[name]) for row in rows] for name in table.fieldnames or ()}
    except ValueError as error:
        raise DataError(f"{path} has a value that is no number ({error}); remove the file to omit its curves") from None


def read_crops(run: Run, data: Path | None) -> tuple[ReidData | None, str]:
    """The data set to measure on, and a warning if there is none.

    `data` is the one that the user chose; None: that of the run, which may be missing. Raises DataError for `data`.
    """
    if data is not None:
        found = read_data(data)
        if why := not_evaluable_reason(found):
            raise DataError(f"{why}; name a data set with a test split")
        return found, ""
    own = run.config.data
    if own.path is None:
        return None, "The settings of the run name no data set; pass one with --data."
    try:
        found = read_data(own.path, own.test)
    except DataError as error:
        return None, f"The data set of the run cannot be read ({error}); pass its new path with --data."
    if why := not_evaluable_reason(found):
        return found, f"Nothing can be ranked: {why}; pass a test set with --data."
    return found, ""
