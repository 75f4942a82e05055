"""Logging of a run: progress bar, CSV tables, TensorBoard events, warnings."""

import csv
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

METRICS, EVALUATIONS = "metrics.csv", "evaluations.csv"
LOG_EVERY = 10
LINE_EVERY_S = 30.0


def logged_at(step: int, iterations: int) -> bool:
    """Whether the values up to this step (counted from 1) are written."""
    return step % LOG_EVERY == 0 or step == iterations


class Monitor:
    """Context manager around a run; takes the values of every step and writes their means every few steps."""

    def __init__(self, out: Path, iterations: int, first_step: int, console: Console) -> None:
        self._path = out / METRICS
        self._rows = _rows_before(self._path, first_step)
        self._evaluations_path = out / EVALUATIONS
        self._evaluations = {row["step"]: row for row in _rows_before(self._evaluations_path, first_step)}
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)
        self._console = console
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=iterations, completed=first_step, status="")
        self._iterations = iterations
        self._started, self._first_step = time.monotonic(), first_step
        self._last_line = 0.0
        self._values: dict[str, list[float]] = defaultdict(list)
        self._images, self._since = 0, self._started
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._board.close()

    def update(self, step: int, values: Mapping[str, float], images: int) -> None:
        """Add the values of a step (counted from 1) and its number of images; write the means at every `LOG_EVERY`-th.

        A value that is not finite was not measured in that step; a mean without any is written as nan.
        """
        for name, value in values.items():
            self._values[name] += [value] if math.isfinite(value) else []
        self._images += images
        if logged_at(step, self._iterations):
            now = time.monotonic()
            means = {name: fmean(seen) if seen else math.nan for name, seen in self._values.items()}
            self._write(step, means | {"images_per_s": self._images / (now - self._since)})
            self._values.clear()
            self._images, self._since = 0, now

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self._rows.append({"step": step, **values})
        with self._path.open("w" if len(self._rows) == 1 else "a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(self._rows[0]), restval="nan", extrasaction="ignore")
            if len(self._rows) == 1:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in self._rows[-1].items()})
        for name, value in values.items():
            if math.isfinite(value):
                self._board.add_scalar(name, value, step)
        status = f"loss {values['loss']:.3f}  lr {values['lr']:.2e}  {values['images_per_s']:.0f} images/s"
        self._progress.update(self._task, completed=step, status=status)
        if self._progress.disable and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._started
            left = elapsed / max(1, step - self._first_step) * (self._iterations - step)
            self._console.print(f"{step}/{self._iterations}  {status}  {left / 60:.1f} min left", highlight=False)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of an evaluation to `evaluations.csv`, TensorBoard and the console."""
        self._evaluations[step] = {"step": step, **values}  # a resumed run may repeat its last evaluation
        with self._evaluations_path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(self._evaluations[step]))
            writer.writeheader()
            for row in self._evaluations.values():
                writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        shown = "  ".join(f"{name} {value:.2f}" for name, value in values.items())
        self._console.print(f"step {step}: {shown}", highlight=False)

    def warn(self, words: list[str]) -> None:
        """Print each warning once."""
        for text in words:
            if text not in self._warned:
                self._warned.add(text)
                print(f"warning: {text}", file=sys.stderr)


def _rows_before(path: Path, step: int) -> list[dict[str, float]]:
    """Rows of a resumed run up to its saved state; later rows are dropped because their steps run again."""
    if not path.exists() or step == 0:
        path.unlink(missing_ok=True)
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [dict(row) for row in csv.DictReader(stream) if int(float(row["step"])) <= step]
    with path.open("w", newline="", encoding="utf-8") as stream:
        if rows:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return [{key: float(value) for key, value in row.items()} for row in rows]
