"""One update of the weights: a pure function of the weights, the batch, the seed and the iteration.

P x K crops -> a shard for each process -> micro-batches -> forward, loss, backward -> one optimiser step
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bundle import ImageArray
from training.config import RunConfig
from training.data import augment_pixels
from training.distributed import World
from training.errors import ConfigError
from training.model import PAN, Normalise, PartClassifiers, PartFeatures, to_planes
from training.trainer.circle_loss import circle_loss
from training.trainer.gradients import clip, gradient_norm, learning_parameters, term_gradient_norms
from training.trainer.initialisation import initialise
from training.trainer.losses import batch_hard_triplet, mask_health, mask_orthogonality, part_cross_entropy
from training.trainer.optimizer import lr_factor, make_optimizer
from training.trainer.warm_start import warm_start

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SEED_STRIDE = 2**40  # larger than any seed offset plus iteration


@dataclass(frozen=True, slots=True)
class Update:
    """Metrics and warnings of an update. The metrics stay on the device, because reading them waits for the update."""

    names: tuple[str, ...]
    numbers: Tensor  # one for each name, of this process
    masks: dict[str, float]
    warnings: list[str]

    @property
    def values(self) -> dict[str, float]:
        """The metrics of this process by name."""
        return dict(zip(self.names, self.numbers.tolist(), strict=True)) | self.masks


class TrainableModule(nn.Module):
    """Network and classifiers as one module, for torch.compile and DistributedDataParallel."""

    def __init__(self, network: PAN, heads: PartClassifiers) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, image_B3HW: Tensor) -> tuple[PartFeatures, Tensor]:
        """Normalised images -> features and logits (I, B, identities)."""
        features = self.network(image_B3HW)
        return features, self.heads(features.embedding_BIE)


class Learner:
    """Network, classifiers, optimiser, loss scale and moving average of a run."""

    def __init__(self, config: RunConfig, identities: int, world: World, device: torch.device) -> None:
        """`identities`: of the training set. Raises ConfigError or CheckpointError."""
        self.config, self.world, self.device = config, world, device
        self.parts = world.size * config.optim.accumulate
        if config.sampler.identities % self.parts or config.sampler.identities < 2 * self.parts:
            raise ConfigError(
                f"sampler.identities={config.sampler.identities} cannot be split into {self.parts} micro-batches "
                f"({world.size} process x optim.accumulate={config.optim.accumulate}) of equal size and two identities "
                f"or more; use a multiple of {self.parts}, {2 * self.parts} at least"
            )
        torch.manual_seed(config.seed)
        network = config.model.network()
        self.network = PAN(network)
        initialise(self.network, config.model)
        self.warm_start = warm_start(self.network, config.model.weights) if config.model.weights else None
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        heads = PartClassifiers(network.parts, self.network.embedding.size, identities, bias=not network.bnneck)
        self.heads = heads.to(device)
        self.normalise = Normalise(config.input_spec()).to(device)
        self.optimizer = make_optimizer(self.network, self.heads, config.optim, bool(config.model.weights))
        self._base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        decay = config.optim.ema
        self.average = AveragedModel(self.network, avg_fn=_ema(decay), use_buffers=True) if decay else None
        trained = TrainableModule(self.network, self.heads)
        if config.compile:
            trained.compile()  # in place, so that the names of the weights stay
        self._trained = trained
        self._shared = world.wrap(trained)
        # non-local blocks are new in a pre-trained backbone and are never frozen
        self._trunk = [module for name, module in self.network.backbone.named_children() if name != "between"]
        self._frozen = False

    @property
    def result(self) -> PAN:
        """The network that is evaluated and saved. Raises FloatingPointError if a weight is not finite."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, PAN)
        _check_finite(network.state_dict())
        return network

    def update(self, step: int, images: ImageArray | Tensor, labels: Tensor, health: bool) -> Update:
        """Update the weights with this process's crops of batch `step` (0-based); `health` adds mask statistics."""
        config = self.config
        self._prepare(step)
        self.optimizer.zero_grad(set_to_none=True)
        micro = config.optim.accumulate
        parameters = learning_parameters(self.optimizer)
        sums: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        chunks = zip(torch.as_tensor(images).chunk(micro), labels.chunk(micro), strict=True)
        for index, (image, label) in enumerate(chunks):
            seed = config.seed * 1_000_003 + step + SEED_STRIDE * (self.world.rank * micro + index)
            pixels = to_planes(image.to(self.device, non_blocking=True))
            generator = torch.Generator().manual_seed(seed)
            image = augment_pixels(pixels, self.normalise, config.augment, generator)
            image, label = image.contiguous(memory_format=torch.channels_last), label.to(self.device, non_blocking=True)
            with self.world.no_sync(self._shared) if index + 1 < micro else nullcontext():
                terms, mask_BIN = self._losses(image, label)
                if index + 1 == micro and self._measures_terms(step):
                    single = {_gradient_column(name): term for name, term in terms.items() if name != "loss"}
                    norms = term_gradient_norms(single, parameters, self.scaler.get_scale())
                self.scaler.scale(terms["loss"] / micro).backward()  # type: ignore[no-untyped-call]
            sums = {name: sums.get(name, 0) + term.detach() for name, term in terms.items()}
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(parameters)
        factor = clip(parameters, norm, config.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        unmeasured = {_gradient_column(name): norm.new_full((), math.nan) for name in sums.keys() - {"loss"}}
        logged = {name: total / micro for name, total in sums.items()} | unmeasured | norms
        logged |= {"grad_norm": norm, "clip_factor": factor}
        logged["lr"] = norm.new_full((), self.optimizer.param_groups[-1]["lr"])
        numbers = torch.stack([value.detach().float() for value in logged.values()])
        if not (health and self._scales):
            return Update(tuple(logged), numbers, {}, [])
        masks = mask_health(mask_BIN, self._scales)
        shown = {"live": min(masks.live), "overlap": masks.overlap}
        return Update(tuple(logged), numbers, shown, masks.warnings())

    def state(self) -> dict[str, Any]:
        """The state for `load_state`. Raises FloatingPointError if a weight is not finite."""
        state = {
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        _check_finite(state["network"])
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.network.load_state_dict(state["network"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty if the state was saved with another precision
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    @property
    def _scales(self) -> tuple[int, ...]:
        return self.network.config.scales if self.network.config.stripes is None else ()

    def _measures_terms(self, step: int) -> bool:
        every = self.config.gradients_every
        return every > 0 and step % every == 0 and not self.config.compile  # needs the graph twice

    def _prepare(self, step: int) -> None:
        """Set the learning rates, and freeze or unfreeze the pre-trained layers."""
        optim = self.config.optim
        factor = lr_factor(step, optim)
        for group, base in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base * factor
        frozen = step < round(optim.freeze_backbone * optim.iterations)
        if frozen != self._frozen:
            self._frozen = frozen
            for module in self._trunk:
                module.requires_grad_(not frozen)
            self._shared = self.world.wrap(self._trained)  # DDP decides at construction which gradients it waits for
        self.network.train()
        if frozen:
            for module in self._trunk:
                module.eval()

    def _losses(self, image: Tensor, label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One forward pass -> the weighted terms of Eq. 5 and their sum, and the masks."""
        config = self.config.loss
        precision = self.config.precision
        with torch.autocast(self.device.type, DTYPES[precision], enabled=precision != "float32"):
            features, logit_IBK = self._shared(image)
        metric_BD = features.metric_BIE.flatten(1).float()
        if config.triplet_features == "unit":
            metric_BD = F.normalize(metric_BD, dim=1)
        terms = {
            "xent": part_cross_entropy(logit_IBK, label, config.smoothing),
            "triplet": config.triplet * batch_hard_triplet(metric_BD, label, config.margin),
        }
        if config.circle:
            terms["circle"] = config.circle * circle_loss(metric_BD, label, config.circle_margin, config.circle_scale)
        if self._scales:
            overlap = mask_orthogonality(features.mask_BIN, self._scales, config.orthogonality_form)
            terms["orthogonality"] = config.orthogonality * overlap
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}, features.mask_BIN


def _ema(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average with a shorter window in the first updates, to forget the initial weights."""

    def step(average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return new  # batch norm's counter
        count = torch.as_tensor(count, dtype=average.dtype, device=average.device)
        return torch.lerp(average, new, (9 / (10 + count)).clamp_min(1 - decay))

    return step


def _gradient_column(term: str) -> str:
    return f"grad_{term}"


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise FloatingPointError(f"the weights {name} are no longer finite")
