"""Each committed recipe is trained and evaluated on a tiny synthetic set in the layout of its data set."""

from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from training.config import RunConfig, load_config
from training.experiments.recipes import RECIPES, read_table, table_names
from training.model import PAN, VARIANTS, BackboneConfig
from training.synth import generate
from training.trainer import Trainer

TINY = [
    "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1", "sampler.identities=4",
    "optim.iterations=2",
]  # fmt: skip
FOLDERS = {  # as the recipes name them
    "market1501": "Market-1501-v15.09.15",
    "dukemtmc": "DukeMTMC-reID",
    "cuhk03": "cuhk03-np",
    "msmt17": "MSMT17_V1",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets, and weights of a small backbone."""
    root = tmp_path_factory.mktemp("datasets")
    for layout, folder in FOLDERS.items():
        generate(
            root / folder, train_identities=4, test_identities=2, cameras=2, crops_per_camera=2, height=64, width=32,
            layout=layout, workers=1,
        )  # fmt: skip
    backbone = BackboneConfig(depth=18, width=0.125)
    network = PAN(VARIANTS["pan_c"].model_copy(update={"backbone": backbone}))
    save_file(network.backbone.state_dict(), root / "backbone.safetensors")
    return root


def configuration(recipe: str, root: Path) -> RunConfig:
    overrides = [*TINY, f"model.weights={root / 'backbone.safetensors'}"]
    for name in ("table3", "table4", "table5"):
        if recipe in (table := read_table(name)).rows:
            return table.config(recipe, overrides, root)
    return load_config(RECIPES / f"{recipe}.yaml", [*overrides, f"data.path={root / FOLDERS[recipe]}"])


@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        ("market1501", "Market-1501-v15.09.15"),
        ("dukemtmc", "DukeMTMC-reID"),
        ("cuhk03_labeled", "cuhk03-labeled"),
        ("cuhk03_detected", "cuhk03-detected"),
        ("msmt17", "MSMT17_V1"),
    ],
)
def test_a_recipe_trains_on_its_data_set(recipe: str, data: str, root: Path, tmp_path: Path) -> None:
    config = configuration(recipe, root)
    assert (config.preset, config.model.variant) == ("paper", "pan_c")
    assert config.model.network().bnneck
    threads = torch.get_num_threads()
    trainer = Trainer(config, tmp_path, Console(quiet=True))
    card = trainer.run()
    torch.set_num_threads(threads)
    assert (len(trainer.data.train), len(trainer.data.query), len(trainer.data.gallery)) == (16, 4, 4)
    assert card.evaluation is not None
    assert (card.evaluation.data, card.evaluation.queries) == (data, 4)


def test_every_recipe_is_tried_here() -> None:
    tried = {"market1501", "dukemtmc", "cuhk03_labeled", "cuhk03_detected", "msmt17"}
    assert {file.stem for file in RECIPES.glob("*.yaml")} == tried | set(table_names())
