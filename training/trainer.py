"""The training loop: a run is a pure function of its configuration, its data and the step it has reached."""

import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from bundle import ImageArray, PanError, Provenance
from training.checkpoint import Card, load_state, save_checkpoint, save_state
from training.config import RunConfig, save_config
from training.data import CropStore, IdentitySampler, augment, read_data, trainable
from training.embed import embed_data, torch_embedder
from training.errors import ConfigError, DataError
from training.evaluation import calibrate, evaluate_embeddings
from training.losses import batch_hard_triplet, mask_health, mask_orthogonality, part_cross_entropy
from training.model import PAN, Normalise, PartClassifiers, to_planes
from training.model.weights import load_backbone_weights
from training.monitor import Monitor
from training.optim import lr_factor, make_optimizer

LOG_EVERY = 10
WEIGHTS, STATE, CONFIG = "model.safetensors", "resume.pt", "config.yaml"


class Stopped(PanError):
    """The run was asked to stop; its state is on disk."""

    code = "stopped"


class Trainer:
    """One run in one folder: `model.safetensors`, `resume.pt`, `config.yaml`, `metrics.csv`, `tensorboard/`."""

    def __init__(self, config: RunConfig, out: Path, console: Console | None = None) -> None:
        """Read the data and build the network. Raises DataError, ConfigError or CheckpointError."""
        if config.data.path is None:
            raise ConfigError("data.path is not set; it names the data set to train on")
        self.config, self.out = config, out
        self.console = console or Console(stderr=True)
        self.device = _device(config.device)
        torch.set_num_threads(config.threads or torch.get_num_threads())
        self.spec = config.input_spec()
        self.data = read_data(config.data.path, config.data.test)
        if self.data.notice:
            self.console.print(self.data.notice)
        crops, self.labels = trainable(self.data.train)
        if not crops:
            raise DataError(f"{self.data.name} has no identity with two training crops or more")
        self.store = CropStore(crops, self.spec, config.data.cache_gib)
        self.sampler = IdentitySampler(self.labels, config.sampler.identities, config.sampler.crops, config.seed)

        torch.manual_seed(config.seed)
        network_config = config.model.network()
        self.network = PAN(network_config)
        if config.model.weights:
            load_backbone_weights(self.network.backbone, network_config.backbone, config.model.weights)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        identities = int(self.labels.max()) + 1
        self.heads = PartClassifiers(
            network_config.parts, self.network.embedding.size, identities, bias=not network_config.bnneck
        ).to(self.device)
        self.normalise = Normalise(self.spec).to(self.device)
        self.optimizer = make_optimizer(self.network, self.heads, config.optim, bool(config.model.weights))
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self._stop = False

    def resume(self) -> None:
        """Go back to the state on disk."""
        state = load_state(self.out / STATE)
        self.network.load_state_dict(state["network"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def run(self) -> Card:
        """Train to the last iteration, evaluate, and write the checkpoint. Raises Stopped after SIGINT or SIGTERM."""
        self.out.mkdir(parents=True, exist_ok=True)
        save_config(self.config, self.out / CONFIG)
        iterations = self.config.optim.iterations
        sums: dict[str, float] = defaultdict(float)
        with ExitStack() as stack:
            monitor = stack.enter_context(Monitor(self.out, iterations, self.step, self.console))
            stack.enter_context(self._stoppable())
            loader = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="batch"))
            pending = loader.submit(self._load, self.step)
            since, counted = time.monotonic(), 0
            while self.step < iterations:
                images, labels = pending.result()
                if self.step + 1 < iterations:
                    pending = loader.submit(self._load, self.step + 1)
                log = (self.step + 1) % LOG_EVERY == 0 or self.step + 1 == iterations
                values, words = self._train_step(images, labels, log)
                self.step += 1
                counted += 1
                for name, value in values.items():
                    sums[name] += value
                if log:
                    means = {name: total / counted for name, total in sums.items()}
                    now = time.monotonic()
                    means["images_per_s"] = counted * len(labels) / (now - since)
                    monitor.update(self.step, means | {k: values[k] for k in ("live", "overlap") if k in values})
                    monitor.warn(words)
                    sums.clear()
                    since, counted = now, 0
                if self._stop:
                    self._save_state()
                    raise Stopped(
                        f"stopped after {self.step} of {iterations} iterations; `pan-train resume {self.out}` goes on"
                    )
                if self.step % self.config.save_every == 0:
                    self._save_state()
                every = self.config.evaluate_every
                if every and self.step % every == 0 and self.step < iterations:
                    card = self._evaluate()
                    assert card.evaluation is not None
                    monitor.scalars(self.step, {"mAP": card.evaluation.mAP, "rank-1": card.evaluation.cmc[1]})
            self._save_state()
            return self._evaluate()

    def _load(self, step: int) -> tuple[ImageArray, Tensor]:
        indices = self.sampler(step)
        return self.store.get(indices), torch.from_numpy(self.labels[indices])

    def _train_step(self, images: ImageArray, labels: Tensor, health: bool) -> tuple[dict[str, float], list[str]]:
        """One update; returns its values and, where `health`, the masks' state and warnings about it."""
        config, loss_config = self.config, self.config.loss
        self.network.train()
        factor = lr_factor(self.step, config.optim)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        image = self.normalise(to_planes(torch.from_numpy(images).to(self.device)))
        image = augment(image, config.augment, generator).contiguous(memory_format=torch.channels_last)
        label = labels.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            features = self.network(image)
            logits = self.heads(features.embedding_BIE)
        terms = {
            "xent": part_cross_entropy(logits, label, loss_config.smoothing),
            "triplet": loss_config.triplet
            * batch_hard_triplet(features.metric_BIE.flatten(1), label, loss_config.margin),
        }
        scales = self.network.config.scales if self.network.config.stripes is None else ()
        if scales:
            terms["orthogonality"] = loss_config.orthogonality * mask_orthogonality(features.mask_BIN, scales)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        values = {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}
        if not np.isfinite(values["loss"]):
            raise DataError(
                f"the loss is {values['loss']} at step {self.step}; lower optim.lr (now {config.optim.lr:g}), lengthen "
                "optim.warmup, or train in precision=float32"
            )
        values["lr"] = self.optimizer.param_groups[-1]["lr"]
        if not (health and scales):
            return values, []
        masks = mask_health(features.mask_BIN, scales)
        return values | {"live": min(masks.live), "overlap": masks.overlap}, masks.warnings()

    def _evaluate(self) -> Card:
        """Evaluate where the data set has query and gallery, and write the checkpoint."""
        evaluation = calibration = None
        if self.data.query and self.data.gallery:
            embedded = embed_data(torch_embedder(self.network, self.spec, self.device), self.data, self.spec)
            evaluation, calibration = evaluate_embeddings(*embedded), calibrate(embedded)
        card = Card(
            variant=self.config.model.variant,
            network=self.network.config,
            input=self.spec,
            provenance=Provenance(
                data=self.data.name,
                recipe=self.config.preset,
                iterations=self.step,
                seed=self.config.seed,
                commit=_commit(),
                licence_notes=self._licence_notes(),
            ),
            evaluation=evaluation,
            calibration=calibration,
        )
        save_checkpoint(self.out / WEIGHTS, self.network, card)
        return card

    def _licence_notes(self) -> str:
        weights = self.config.model.weights
        initialised = f"backbone initialised from {Path(weights).name}" if weights else ""
        return "; ".join(note for note in (initialised, self.data.notice) if note)

    def _save_state(self) -> None:
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(self.out / STATE, state)

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM end the run after its step, and a second one end it at once."""

        def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._stop = True
            signal.signal(number, old[number])

        old = {int(number): signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda was asked for and this PyTorch finds no CUDA GPU; use device=cpu or auto")
    return device


def _commit() -> str | None:
    """The commit of the source tree, where there is one."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
