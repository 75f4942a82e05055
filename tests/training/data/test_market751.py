"""Real crops and real weights, where they are (PAN_REID_DATA, by default ../shared/data; never part of the project)."""

import os
from pathlib import Path

import numpy as np
import pytest

from bundle import InputSpec
from training.data import persons, read_data
from training.embed import evaluate_on, torch_embedder
from training.model import PAN, VARIANTS, BackboneConfig
from training.model.weights import load_backbone_weights

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("PAN_REID_DATA", ROOT.parent / "shared" / "data")) / "market751"
WEIGHTS = DATA.parents[1] / "weights" / "resnet50_half_imagenet.safetensors"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="market751 is not there; set PAN_REID_DATA")


def test_the_reader_finds_the_counts_of_the_readme() -> None:
    data = read_data(DATA)
    assert (len(data.train), len(data.query), len(data.gallery)) == (9461, 426, 1226)
    assert len(set(persons(data.train))) == 551
    assert set(persons(data.query)) == set(persons(data.gallery))
    assert not set(persons(data.train)) & set(persons(data.query))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the half-width weights are not there")
def test_pretrained_weights_know_more_of_people_than_random_ones() -> None:
    backbone = BackboneConfig(width=0.5, stride_at="conv1", stem_pool="ceil")
    network = PAN(VARIANTS["global_bnneck"].model_copy(update={"backbone": backbone}))
    data, spec = read_data(DATA), InputSpec(height=96, width=48)
    few = set(sorted(set(persons(data.query)))[:12])
    data = type(data)(
        data.name, (), *(tuple(c for c in side if c.person in few) for side in (data.query, data.gallery))
    )
    before = evaluate_on(torch_embedder(network, spec), data, spec)
    load_backbone_weights(network.backbone, backbone, str(WEIGHTS))
    after = evaluate_on(torch_embedder(network, spec), data, spec)
    assert after.mAP > before.mAP + 2
    assert np.isfinite(after.mINP)
