"""The folder of a run, read: its network and card, its settings, and what it wrote while it trained."""

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
    """A run that has been evaluated once at least."""

    folder: Path
    network: PAN
    card: Card
    config: RunConfig
    metrics: Series
    evaluations: Series  # empty where the run was evaluated at its end only

    @property
    def has_learned_parts(self) -> bool:
        """Whether the parts were learned (PLM), not fixed stripes."""
        return self.card.network.stripes is None


def read_run(folder: Path) -> Run:
    """Read a run. Raises ConfigError where the folder holds none, CheckpointError where its weights do not fit."""
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it holds no {CONFIG}; `pan-train run` writes one")
    if not (folder / WEIGHTS).exists() and (folder / STATE).exists():
        raise ConfigError(f"the run in {folder} is not finished; `pan-train resume {folder}` goes on with it")
    network, card = load_checkpoint(folder)
    series = (_read_series(folder / name) for name in (METRICS, EVALUATIONS))
    return Run(folder.resolve(), network, card, load_config(folder / CONFIG), *series)


def _read_series(path: Path) -> Series:
    """A table of numbers; empty where there is none. A last line that a killed run left half written is dropped."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream)
        rows = [row for row in table if None not in row.values()]
    try:
        return {name: [float(row[name]) for row in rows] for name in table.fieldnames or ()}
    except ValueError as error:
        raise DataError(f"{path} holds more than numbers ({error}); remove it to do without its curves") from None


def read_crops(run: Run, data: Path | None) -> tuple[ReidData | None, str]:
    """The data set to measure on, and what to say where there is none.

    `data` is what the user named; None: the run's own, which may be gone. Raises DataError for one that is named.
    """
    if data is not None:
        found = read_data(data)
        if why := not_evaluable_reason(found):
            raise DataError(f"{why}; name a data set with a test split")
        return found, ""
    own = run.config.data
    if own.path is None:
        return None, "The settings of the run name no data set; give one with --data."
    try:
        found = read_data(own.path, own.test)
    except DataError as error:
        return None, f"The data set of the run cannot be read ({error}); name the place where it is now with --data."
    if why := not_evaluable_reason(found):
        return found, f"Nothing can be ranked: {why}; name a test set with --data."
    return found, ""
