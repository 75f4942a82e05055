"""A plan in a folder with two checkpoints, run inside the process of the test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import export.bundles.exporter
from export.batch import ResultRow, plan_actions, read_plan, run_batch
from export.batch.summary import write_summary
from tests.export.bundles.test_exporter import everything
from tests.export.conftest import Traced
from training.checkpoint import load_checkpoint, save_checkpoint

STEM = "network.backbone.conv1.weight"
SMALL = "out: out\nimages: 4\ncalibration: 8\n"
IMPOSSIBLE = "gates: {float16: {min_cosine: 1}}\n"
MODELS = "models:\n  - checkpoint: one\n  - checkpoint: two\n    engines: [onnx:float16]\n"


class Batch:
    """A plan in a folder. `run` runs it without worker processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.steps: list[str] = []

    def plan(self, text: str) -> None:
        """Write the plan."""
        (self.folder / "plan.yaml").write_text(text)

    def run(self) -> list[ResultRow]:
        """Run the plan."""
        self.steps.clear()
        out, jobs = read_plan(self.folder / "plan.yaml")
        results = [row for rows in run_batch(out, jobs, self.steps.append, call_directly) for row in rows]
        write_summary(out, results)
        return results

    def verdicts(self) -> dict[str, str]:
        """Run the plan -> the verdict of each engine, or "kept"."""
        return {f"{row.bundle} {row.engine}": "kept" if row.kept else row.verdict for row in self.run()}

    def actions(self) -> list[str]:
        """What a run would do with each engine."""
        return [action for *_, action in plan_actions(*read_plan(self.folder / "plan.yaml"))]

    def change_weights(self, model: str) -> None:
        """Change the weights of a checkpoint, as further training does."""
        network, card = load_checkpoint(self.folder / model)
        with torch.no_grad():
            network.backbone.conv1.weight *= 1.01
        save_checkpoint(self.folder / model / "model.safetensors", network, card)


def call_directly(function: Callable[..., Any], *arguments: Any, step: Callable[[str], None], **_: object) -> Any:
    """Run a worker's function in this process."""
    return function(*arguments, step)


def times_and_bytes(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of each file: equal if and only if no file was written again."""
    return {name: ((folder / name).stat().st_mtime_ns, content) for name, content in everything(folder).items()}


@pytest.fixture
def batch(tmp_path: Path, pan_c: Traced, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Two checkpoints that differ in their stem. Tracing is replaced by a copy of one traced graph with that stem."""

    def graph(network: Any, *_: object) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(pan_c.model)
        stem = next(weight for weight in model.graph.initializer if weight.name == STEM)
        norms = [float(weights.backbone.conv1.weight.detach().norm()) for weights in (network, pan_c.network)]
        stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(norms[0] / norms[1]), STEM))
        return model

    monkeypatch.setattr(export.bundles.exporter, "onnx_graph", graph)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_checkpoint(tmp_path / name / "model.safetensors", pan_c.network, pan_c.card)
    batch = Batch(tmp_path)
    batch.change_weights("two")
    return batch
