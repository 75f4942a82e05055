"""Long, large and distributed runs: their files, their messages, and that they stay exact."""

import io
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.checkpoint import load_checkpoint, load_state
from training.config import load_config
from training.data import read_data
from training.embed import evaluate_on, torch_embedder
from training.errors import CheckpointError, ConfigError, Diverged, OutOfMemory
from training.model import PAN, Normalise, PartClassifiers, to_planes
from training.trainer import Trainer
from training.trainer.failure_advice import advise
from training.trainer.interruption import Stopped
from training.trainer.learner import Update
from training.trainer.losses import batch_hard_triplet, mask_orthogonality

SMALL = [
    "preset=short", "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1",
    "sampler.identities=4", "sampler.crops=2", "save_every=7", "seed=5",
]  # fmt: skip
STILL = ["augment.flip=0", "augment.shift=0", "augment.zoom=0", "augment.erase=0"]


@pytest.fixture(autouse=True)
def threads() -> Any:
    """A run sets the threads of its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trainer(market: Path, tmp_path: Path) -> Callable[..., Trainer]:
    def make(*overrides: str, out: str = "run", console: Console | None = None) -> Trainer:
        config = load_config(None, [*SMALL, f"data.path={market}", *overrides])
        return Trainer(config, tmp_path / out, console or Console(file=io.StringIO()))

    return make


def after_each_step(trainer: Trainer, look: Callable[[int], object]) -> None:
    """Call `look(n)` after the n-th update, counted from 1."""
    update = trainer.learner.update

    def watched(step: int, *batch: Any) -> Update:
        done = update(step, *batch)
        look(step + 1)
        return done

    trainer.learner.update = watched  # type: ignore[assignment, method-assign]


def interrupt(trainer: Trainer, at: int) -> None:
    """Send SIGINT after a step, as Ctrl-C would."""
    after_each_step(trainer, lambda step: signal.raise_signal(signal.SIGINT) if step == at else None)


@pytest.mark.parametrize(
    ("overrides", "files"),
    [
        (["optim.ema=0.9", "optim.accumulate=2"], ["model"]),
        (["precision=float16"], ["model"]),
        (["evaluate_every=3", "early_stop=3", "optim.iterations=40"], ["model", "best"]),
    ],
    ids=["average-accumulated", "float16", "best"],
)
def test_a_stopped_run_resumes_to_the_same_files(
    trainer: Callable[..., Trainer], overrides: list[str], files: list[str], tmp_path: Path
) -> None:
    overrides = ["optim.iterations=10", *overrides]
    whole = trainer(*overrides, out="whole")
    whole.run()
    stopped = trainer(*overrides, out="stopped")
    interrupt(stopped, at=6)
    with pytest.raises(Stopped, match="after 6 of"):
        stopped.run()
    resumed = trainer(*overrides, out="stopped")
    resumed.resume()
    assert resumed.step == 6
    resumed.run()
    assert resumed.step == whole.step
    for name in files:
        a, b = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "stopped"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    a, b = (load_state(tmp_path / run / "resume.pt") for run in ("whole", "stopped"))
    assert a["scaler"] == b["scaler"]
    assert a["progress"] == b["progress"]
    if "best" in files:
        measured, again = ((tmp_path / run / "evaluations.csv").read_text() for run in ("whole", "stopped"))
        assert measured == again
        assert [line.split(",")[0] for line in measured.splitlines()[:4]] == ["step", "3", "6", "9"]


def test_a_state_without_parts_that_the_settings_need_is_refused(trainer: Callable[..., Trainer]) -> None:
    trainer("optim.iterations=1").run()
    with pytest.raises(CheckpointError, match=r"other settings \('average'\)"):
        trainer("optim.iterations=1", "optim.ema=0.9").resume()


def test_the_best_network_is_kept_and_a_run_without_progress_ends(
    trainer: Callable[..., Trainer], market: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    run = trainer("optim.iterations=500", "evaluate_every=2", "early_stop=3", console=Console(file=said, width=200))
    last = run.run()
    figures = [float(text) for text in re.findall(r" mAP (\d+\.\d\d)  rank", said.getvalue())]
    assert run.step == 2 * len(figures) < 500
    assert max(figures[-3:]) <= max(figures[:-3])
    network, card = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert card.evaluation is not None
    assert last.evaluation is not None
    assert card.evaluation.mAP == pytest.approx(max(figures), abs=0.005)
    assert card.provenance.iterations == 2 * (1 + figures.index(max(figures)))
    assert last.evaluation.mAP == pytest.approx(figures[-1], abs=0.005)
    again = evaluate_on(torch_embedder(network, card.input), read_data(market), card.input)
    assert again.mAP == pytest.approx(card.evaluation.mAP, abs=0.01)


def test_a_finished_run_stays_finished(trainer: Callable[..., Trainer]) -> None:
    overrides = ["optim.iterations=500", "evaluate_every=1", "early_stop=1"]
    first = trainer(*overrides)
    card = first.run()
    again = trainer(*overrides)
    again.resume()
    assert again.run() == card
    assert again.step == first.step


def test_micro_batches_add_up_to_the_mean_of_their_losses(trainer: Callable[..., Trainer]) -> None:
    """One update, written out: two halves of the identities, their gradients averaged, plain gradient descent."""
    run = trainer(
        *STILL, "optim.accumulate=2", "optim.iterations=1", "optim.name=sgd", "optim.lr=0.01", "optim.warmup=0",
        "optim.momentum=0", "optim.weight_decay=0", "loss.smoothing=0",
    )  # fmt: skip
    config = run.config.model.network()
    torch.manual_seed(5)
    network = PAN(config)
    heads = PartClassifiers(config.parts, network.embedding.size, 6, bias=False)
    indices = run.sampler(0)
    image = Normalise(run.spec)(to_planes(torch.from_numpy(run.store.get(indices))))
    label = torch.from_numpy(run.labels[indices])
    for half in (slice(0, 4), slice(4, 8)):
        out = network(image[half])
        logits = heads(out.embedding_BIE)
        loss = sum(F.cross_entropy(logit, label[half]) for logit in logits)
        loss = loss + batch_hard_triplet(out.metric_BIE.flatten(1), label[half], 0.3)
        loss = loss + mask_orthogonality(out.mask_BIN, config.scales)
        (loss / 2).backward()  # type: ignore[no-untyped-call]
    run.run()
    for name, weight in network.named_parameters():
        if weight.grad is not None:
            expected = weight.detach() - 0.01 * weight.grad
            torch.testing.assert_close(run.learner.network.get_parameter(name).detach(), expected, atol=1e-5, rtol=1e-4)


def test_a_clipped_update_is_no_longer_than_its_limit(trainer: Callable[..., Trainer]) -> None:
    """Plain SGD moves the weights by lr times the gradient, so the length of the step tells that of the gradient."""
    plain = ["optim.name=sgd", "optim.momentum=0", "optim.weight_decay=0", "optim.warmup=0", "optim.lr=0.1"]
    run = trainer(*plain, "optim.iterations=1", "optim.clip_norm=0.5")
    learner = run.learner
    weights = [p for group in learner.optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in weights]
    images, labels = run._load(0)
    learner.update(0, images, labels, health=False)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(weights, before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.5, rel=1e-3)


def test_the_averaged_weights_are_saved(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    run = trainer("optim.ema=0.5", "optim.iterations=14")
    names = ["embedding.weight", "embedding.norm.running_mean"]
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def look(_: int) -> None:
        for name in names:
            seen[name].append(run.learner.network.state_dict()[name].clone())

    after_each_step(run, look)
    run.run()
    saved = load_file(tmp_path / "run" / "model.safetensors")
    for name, values in seen.items():
        average = values[0].double()
        for count, value in enumerate(values[1:], start=1):
            keep = min(0.5, (1 + count) / (10 + count))
            average = keep * average + (1 - keep) * value.double()
        torch.testing.assert_close(saved[name].double(), average, atol=1e-6, rtol=1e-4)
        assert not torch.allclose(saved[name], values[-1])


def test_a_frozen_backbone_keeps_weights_and_statistics_and_then_learns(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    config = load_config(None, SMALL).model.network()
    start = {name: tensor.clone() for name, tensor in PAN(config).backbone.state_dict().items()}
    save_file(start, tmp_path / "start.safetensors")
    run = trainer(f"model.weights={tmp_path / 'start.safetensors'}", "optim.freeze_backbone=0.5", "optim.iterations=8")
    head = run.learner.network.embedding.weight
    assert head is not None
    before = head.detach().clone()
    unchanged: list[list[str]] = []

    def look(_: int) -> None:
        now = run.learner.network.backbone.state_dict()
        unchanged.append([name for name in start if torch.equal(start[name], now[name])])
        assert not torch.equal(head, before)

    after_each_step(run, look)
    run.run()
    assert [names == list(start) for names in unchanged] == [True] * 4 + [False] * 4
    assert not [name for name in unchanged[-1] if name.endswith(("conv1.weight", "running_mean"))]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own, when its compiler loads
def test_compiling_leaves_the_names_of_the_weights(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with torch.compiler.set_stance("force_eager"):  # the compiler itself takes minutes on two cores
        trainer("compile=true", "optim.iterations=2").run()
    network, card = load_checkpoint(tmp_path / "run")
    assert network.state_dict().keys() == PAN(card.network).state_dict().keys()


def test_a_diverging_run_ends_with_advice_and_a_finite_state(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    run = trainer("optim.iterations=50", "optim.name=sgd", "optim.lr=1e12", "optim.warmup=0.9", "save_every=1")
    with pytest.raises(Diverged, match=r"lower optim\.lr \(now 1e\+12\).*pan-train resume"):
        run.run()
    state = load_state(tmp_path / "run" / "resume.pt")
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_weights_that_are_not_finite_never_replace_a_state(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    """Training does not look at the running statistics, so the loss says nothing of these."""
    run = trainer("optim.iterations=20")
    statistics = run.learner.network.backbone.bn1.running_mean
    assert statistics is not None
    after_each_step(run, lambda step: statistics.fill_(torch.nan) if step == 9 else None)
    with pytest.raises(Diverged, match=r"bn1\.running_mean.*after 7 iterations is saved"):
        run.run()
    assert load_state(tmp_path / "run" / "resume.pt")["step"] == 7


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_an_out_of_memory_error_names_the_settings_to_lower(error: Exception) -> None:
    advice = advise(error, load_config(None, SMALL), "No state was saved yet")
    assert isinstance(advice, OutOfMemory)
    assert re.search(r"4 x 2 crops of 64 x 32.*optim\.accumulate.*bfloat16.*data\.height", str(advice))
    assert advise(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), load_config(None, SMALL), "") is None


def test_memory_that_is_really_full_ends_in_one_line(market: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    large = ["data.height=2048", "data.width=1024"]
    command = ["run", "--out", str(tmp_path / "run"), f"data.path={market}", *SMALL, *large]
    done = subprocess.run(
        [sys.executable, "-m", "training.cli", *command], capture_output=True, text=True, preexec_fn=limit, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: memory is full at 4 x 2 crops of 2048 x 1024")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim.accumulate=4"], "sampler.identities=4 cannot be split into 4 micro-batches"),
        (["optim.accumulate=3"], "use a multiple of 3, 6 at least"),
        (["early_stop=2"], "set evaluate_every too"),
        (["optim.freeze_backbone=0.1"], "set model.weights too"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(
    trainer: Callable[..., Trainer], overrides: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer(*overrides)
