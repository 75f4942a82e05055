"""Small networks whose batch norms have seen data, and their ONNX files, each made once: tracing takes seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bundle import ImageArray, InputSpec, Provenance
from export.bundles.exporter import model_fingerprint
from export.bundles.writer import save_onnx
from export.onnx.graph import onnx_graph
from export.parity.agreement import BATCH_SIZES, Agreement, Reference
from export.parity.samples import Samples, synthetic_samples
from training.checkpoint import Card, save_checkpoint
from training.embed import Embed
from training.evaluation import Embedded, Labels
from training.model import PAN, VARIANTS, BackboneConfig, Normalise, to_planes

SPEC = InputSpec(height=128, width=64)


@dataclass(frozen=True)
class Traced:
    """A network with the file it was exported to."""

    variant: str
    network: PAN
    model: onnx.ModelProto
    path: Path

    @property
    def card(self) -> Card:
        """As training would write it."""
        origin = Provenance(data="none", recipe="random weights", iterations=0, seed=0)
        return Card(variant=self.variant, network=self.network.config, input=SPEC, provenance=origin)


def make_network(variant: str, backbone: BackboneConfig | None = None, gem: bool = False) -> PAN:
    """Random weights; batch norm statistics of synthetic people, without which depth multiplies every difference."""
    torch.manual_seed(0)
    backbone = backbone or BackboneConfig(depth=18, width=0.5)
    network = PAN(VARIANTS[variant].model_copy(update={"backbone": backbone, "gem": gem})).train()
    pixels = torch.from_numpy(synthetic_samples(SPEC, 16, seed=9).images_NHW3)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # take the statistics of one pass whole
    with torch.no_grad():
        network(Normalise(SPEC)(to_planes(pixels)))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def trace(variant: str, folder: Path, backbone: BackboneConfig | None = None, gem: bool = False) -> Traced:
    """Export a small network of a variant."""
    network = make_network(variant, backbone, gem)
    model = onnx_graph(network, SPEC, {"fingerprint": model_fingerprint(network, SPEC), "variant": variant})
    path = folder / f"{variant}.onnx"
    save_onnx(model, path)
    return Traced(variant, network, model, path)


def compare(
    reference: Embed, engine: Embed, images: ImageArray, sizes: tuple[int, ...] = BATCH_SIZES, people: int = 2
) -> Agreement:
    """The agreement of two engines on images that are of `people` in turns, the first of each being the query."""
    person = 1 + np.arange(len(images)) % people
    query, camera = np.arange(len(images)) < people, np.arange(len(images))

    def embedded(embed: Embed) -> Embedded:
        rows = embed(images)
        sides = [(rows[side], Labels(person[side], camera[side])) for side in (query, ~query)]
        return Embedded(*sides[0], *sides[1])

    return Reference(reference, Samples("test", images, embedded), sizes).compare(engine)


@pytest.fixture(scope="session")
def pan_c(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """PAN_c on a narrow ResNet-18."""
    return trace("pan_c", tmp_path_factory.mktemp("pan_c"))


@pytest.fixture(scope="session")
def checkpoint(pan_c: Traced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `pan_c`."""
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_checkpoint(path, pan_c.network, pan_c.card)
    return path
