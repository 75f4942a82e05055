"""Trains the runs of a table recipe with several seeds; finished runs are kept when it is continued."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from training.checkpoint import load_checkpoint
from training.config import RunConfig, unknown_name
from training.data import not_evaluable_reason, read_data
from training.errors import CheckpointError, ConfigError, DataError
from training.experiments.paper import PRINTED
from training.experiments.recipes import Table
from training.experiments.runs import Job, train
from training.experiments.tables import write_tables


def run_table(
    table: Table,
    rows: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    data_root: Path,
    out: Path,
    devices: Sequence[str],
    console: Console,
) -> list[str]:
    """Train all unfinished runs of rows x seeds (no rows: all); returns a message for each run that failed.

    The runs are distributed over `devices`; without any, one runs at a time, on the device of its configuration. A
    failed run does not stop the others. Raises Stopped when interrupted, ConfigError for an unknown name or setting.
    """
    for row in rows:
        if row not in table.rows:
            raise ConfigError(f"row of {table.name}: {unknown_name(row, table.rows)}")
    jobs, failures = [], []
    for seed in seeds:  # seeds in the outer loop, so that an interrupted table has complete comparisons
        for row in rows or table.rows:
            config = table.config(row, [*overrides, f"seed={seed}"], data_root)
            job = Job(out / f"{row}-seed{seed}", config)
            if _finished(job):
                console.print(f"{job.name}: finished before")
                continue
            try:
                _check_data(config)
            except DataError as error:
                failures.append(f"{job.name}: {error}")
                continue
            jobs.append(job)
    out.mkdir(parents=True, exist_ok=True)
    for job, failure in train(jobs, devices or [None], console):
        if failure:
            failures.append(f"{job.name}: {failure}")
        write_tables(out, table.content.title, table.rows, PRINTED.get(table.name, {}))
    if not jobs:
        write_tables(out, table.content.title, table.rows, PRINTED.get(table.name, {}))
    return failures


def _check_data(config: RunConfig) -> None:
    if config.data.path is None:
        raise ConfigError("data.path is not set; set it to the training data set")
    if why := not_evaluable_reason(read_data(config.data.path, config.data.test)):
        raise DataError(f"{why}; a table needs figures: set data.test to a test set")


def _finished(job: Job) -> bool:
    try:
        _, card = load_checkpoint(job.folder)
    except CheckpointError:
        return False
    return card.evaluation is not None and card.provenance.iterations == job.config.optim.iterations
