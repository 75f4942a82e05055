"""The training loop. A run is a pure function of its configuration, its data and its step."""

import math
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from bundle import Calibration, Evaluation, Provenance
from training.checkpoint import Card, load_state, save_checkpoint, save_state
from training.config import RunConfig, save_config
from training.data import (
    CropStore,
    IdentitySampler,
    describe_excluded,
    limit_training,
    not_evaluable_reason,
    prefetch,
    read_data,
    trainable,
)
from training.distributed import init_process_group
from training.embed import embed_shard, torch_embedder
from training.errors import CheckpointError, ConfigError, DataError
from training.evaluation import calibrate, evaluate_embeddings
from training.trainer.cost import measure_cost, write_cost
from training.trainer.failure_advice import advise
from training.trainer.interruption import Stopped, StopRequest
from training.trainer.learner import Learner, Update
from training.trainer.monitor import Monitor, logged_at

WEIGHTS, BEST, STATE, CONFIG = "model.safetensors", "best.safetensors", "resume.pt", "config.yaml"


@dataclass(slots=True)
class Progress:
    """State of the evaluations of a run."""

    evaluated: int = 0  # the iteration of the last one
    best: float = -1.0  # mAP
    evals_without_improvement: int = 0  # evaluations since the best one


class Trainer:
    """One run in one folder: `model.safetensors`, `best.safetensors`, `resume.pt`, `config.yaml`, `metrics.csv`,
    `evaluations.csv`, `cost.json`, `tensorboard/`. In a distributed run, only rank 0 writes and prints.
    """

    def __init__(self, config: RunConfig, out: Path, console: Console | None = None) -> None:
        """Read the data and build the network.

        Raises DataError, ConfigError, CheckpointError, or OutOfMemory if the network does not fit.
        """
        if config.data.path is None:
            raise ConfigError("data.path is not set; set it to the training data set")
        if config.preset == "paper" and config.model.weights is None:
            raise ConfigError(
                "preset=paper starts from a backbone pre-trained on ImageNet, and model.weights is null; set "
                "model.weights=imagenet or the path of such weights, or choose another preset"
            )
        self.config, self.out = config, out
        self.commit = _commit()  # of the code that is loaded now; the checkout may change during the run
        self.world, self.device = init_process_group(config.device)
        self.console = console or Console(stderr=True)
        if not self.world.is_main:
            self.console = Console(quiet=True)
        torch.set_num_threads(config.threads or torch.get_num_threads())
        self.spec = config.input_spec()
        data = read_data(config.data.path, config.data.test)
        self.data = limit_training(data, config.data.max_identities, config.data.max_crops)
        self.not_evaluated = not_evaluable_reason(self.data)
        if self.not_evaluated and config.evaluate_every:
            raise ConfigError(f"{self.not_evaluated}; set evaluate_every=0 to train without an evaluation")
        if self.not_evaluated:
            self._print(f"warning: {self.not_evaluated}; this run trains and saves its network without an evaluation")
        if self.data.notice:
            self._print(self.data.notice)
        crops, self.labels = trainable(self.data.train)
        if not crops:
            raise DataError(f"{self.data.name} has no identity with two training crops or more")
        if lost := describe_excluded(self.data.train):
            self._print(f"training on {len(crops)} of {len(self.data.train)} crops; left out: {lost}")
        self.store = CropStore(crops, self.spec, config.data.cache_gib, config.data.decode_threads)
        self.sampler = IdentitySampler(self.labels, config.sampler.identities, config.sampler.crops, config.seed)
        self.step = 0
        self.progress = Progress()
        self._saved: int | None = None
        try:
            self.learner = Learner(config, int(self.labels.max()) + 1, self.world, self.device)
        except Exception as error:
            raise advise(error, config, self._saved_state_hint()) or error from error

    def resume(self) -> None:
        """Restore the saved state. Raises CheckpointError."""
        state = load_state(self.out / STATE)
        try:
            self.learner.load_state(state)
            self.step = self._saved = state["step"]
            self.progress = Progress(**state["progress"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.out / STATE} was written by another version or with other settings ({error}); "
                "start the run in a new folder"
            ) from None

    def run(self) -> Card:
        """Train to the end, write the checkpoint, evaluate, and write it again with the results.

        Raises Stopped after SIGINT or SIGTERM; Diverged, OutOfMemory or ProcessLost, with a remedy, if the run cannot
        continue. The last saved state stays on disk.
        """
        if self.world.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
            save_config(self.config, self.out / CONFIG)
            if self.step == 0 and self.learner.warm_start:
                self.learner.warm_start.save(self.out)
                self.console.print(self.learner.warm_start.table())
        try:
            return self._run()
        except Exception as error:
            advice = advise(error, self.config, self._saved_state_hint())
            if advice is None:
                raise
            raise advice from error

    def _run(self) -> Card:
        iterations, card = self.config.optim.iterations, None
        updates: list[Update] = []  # that were not read yet
        with ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            batches = stack.enter_context(closing(self.batches()))
            monitor = None
            if self.world.is_main:
                monitor = stack.enter_context(Monitor(self.out, iterations, self.step, self.console))
            while True:
                if self._evaluation_due():
                    card = self._evaluate()
                    self._update_best(card, monitor)
                if self._done():
                    break
                images, labels = next(batches)
                logs = logged_at(self.step + 1, iterations)
                updates.append(self.learner.update(self.step, images, labels, logs))
                self.step += 1
                stopping = self.world.any(stop.requested)
                saves = stopping or self.step % self.config.save_every == 0 or self.step == iterations
                if logs or saves or self._evaluation_due():
                    self._read(updates, len(labels) * self.world.size, monitor)
                    updates.clear()
                if saves:
                    self._save_state()
                if stopping:
                    raise Stopped(
                        f"stopped after {self.step} of {iterations} iterations; `pan-train resume {self.out}` continues"
                    )
        return card or self._evaluate()

    def batches(self) -> Generator[tuple[Tensor, Tensor]]:
        """This process's crops of each remaining batch; the next batches are loaded in the background."""
        return prefetch(self._load, range(self.step, self.config.optim.iterations))

    def _load(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self.sampler(step)
        share = len(indices) // self.world.size
        indices = indices[self.world.rank * share : (self.world.rank + 1) * share]
        batch = torch.from_numpy(self.store.get(indices)), torch.from_numpy(self.labels[indices])
        if self.device.type != "cuda":
            return batch
        images, labels = batch
        with torch.cuda.device(self.device):  # a thread begins with GPU 0
            return images.pin_memory(), labels.pin_memory()  # the copy to the GPU then runs beside its work

    def _read(self, updates: list[Update], images: int, monitor: Monitor | None) -> None:
        """Log the means over all processes; `images` of each update. Raises FloatingPointError if a loss is not finite.

        It waits for the device. Between two calls, the next updates are queued while the device works.
        """
        rows = self.world.mean(torch.stack([update.numbers for update in updates])).tolist()
        for step, (update, row) in enumerate(zip(updates, rows, strict=True), start=self.step - len(updates) + 1):
            values = dict(zip(update.names, row, strict=True))
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"the loss is {values['loss']} after {step - 1} iterations")
            if monitor:
                monitor.update(step, values | update.masks, images)
                monitor.warn(update.warnings)

    def _done(self) -> bool:
        patience = self.config.early_stop
        return self.step == self.config.optim.iterations or 0 < patience <= self.progress.evals_without_improvement

    def _evaluation_due(self) -> bool:
        every = self.config.evaluate_every
        due = self.step == self.config.optim.iterations or (every > 0 and self.step % every == 0)
        return due and self.step > self.progress.evaluated

    def _evaluate(self) -> Card:
        """Write the checkpoint, evaluate, and write it again with the results.

        Raises DataError if a test crop cannot be used; the checkpoint without results stays.
        """
        network = self.learner.result
        self.world.broadcast_buffers(network)
        if self._saved != self.step:
            self._save_state()
        card = self._card(None, None)
        self._save_checkpoint(WEIGHTS, card)
        if self.not_evaluated:
            return card
        try:
            started = time.perf_counter()
            embedder = torch_embedder(network, self.spec, self.device)
            embedded = embed_shard(embedder, self.data, self.spec, self.world)
            evaluation = evaluate_embeddings(*embedded) if embedded else None
            seconds = time.perf_counter() - started
            calibration = calibrate(embedded) if embedded else None
        except DataError as error:
            raise DataError(
                f"{error}. {self.out / WEIGHTS} contains the network after {self.step} iterations, not evaluated; "
                f"`pan-train resume {self.out}` evaluates it"
            ) from error
        card = self.world.broadcast(self._card(evaluation, calibration))
        self._save_checkpoint(WEIGHTS, card)
        if self.world.is_main:
            write_cost(self.out, measure_cost(self.device, seconds))
        return card

    def _save_checkpoint(self, name: str, card: Card) -> None:
        if self.world.is_main:
            save_checkpoint(self.out / name, self.learner.result, card)

    def _update_best(self, card: Card, monitor: Monitor | None) -> None:
        """Save the best network, and count the evaluations since."""
        self.progress.evaluated = self.step
        if not self.config.evaluate_every or card.evaluation is None:
            return
        if card.evaluation.mAP > self.progress.best:
            self.progress.best, self.progress.evals_without_improvement = card.evaluation.mAP, 0
            self._save_checkpoint(BEST, card)
        else:
            self.progress.evals_without_improvement += 1
        if monitor:
            figures = {"mAP": card.evaluation.mAP, "rank-1": card.evaluation.cmc[1], "best mAP": self.progress.best}
            monitor.scalars(self.step, figures)
        if self._done():
            self._save_state()

    def _card(self, evaluation: Evaluation | None, calibration: Calibration | None) -> Card:
        return Card(
            variant=self.config.model.variant,
            network=self.learner.network.config,
            input=self.spec,
            provenance=Provenance(
                data=self.data.name,
                recipe=self.config.preset,
                iterations=self.step,
                seed=self.config.seed,
                commit=self.commit,
                licence_notes=self._licence_notes(),
            ),
            evaluation=evaluation,
            calibration=calibration,
        )

    def _licence_notes(self) -> str:
        start = self.learner.warm_start
        initialised = (f"initialised from {Path(start.source).name}", start.licence_notes) if start else ()
        return "; ".join(note for note in (*initialised, self.data.notice) if note)

    def _save_state(self) -> None:
        if self.world.is_main:
            state = self.learner.state()
            save_state(self.out / STATE, {**state, "step": self.step, "progress": asdict(self.progress)})
        self._saved = self.step

    def _print(self, words: str) -> None:
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _saved_state_hint(self) -> str:
        if self._saved is None:
            return "No state was saved yet: start again"
        return (
            f"The state after {self._saved} iterations is saved: change {self.out / CONFIG}, then "
            f"`pan-train resume {self.out}`"
        )


def _commit() -> str | None:
    """The commit of the source tree, where there is one."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
