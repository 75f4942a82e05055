"""Run configurations: presets, files, overrides, and the errors on mistakes."""

from pathlib import Path

import pytest

from training.config import PRESETS, load_config, save_config
from training.errors import ConfigError


def test_the_paper_preset_is_the_papers_recipe() -> None:
    config = load_config(None, ["preset=paper"])
    assert (config.sampler.identities, config.sampler.crops) == (8, 4)
    assert (config.optim.name, config.optim.lr, config.optim.backbone_lr) == ("sgd", 0.1, 0.01)
    assert [round(m * config.optim.iterations) for m in config.optim.milestones] == [5000, 7500]
    assert (config.data.height, config.data.width) == (384, 128)
    assert (config.loss.triplet, config.loss.orthogonality) == (1, 1e-3)
    assert (config.optim.clip_norm, config.optim.warmup) == (None, 0)
    assert (config.model.depth, config.model.weights) == (50, "imagenet")


@pytest.mark.parametrize("preset", PRESETS)
def test_overrides_stand_above_the_file_and_the_file_above_the_preset(preset: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"preset: {preset}\noptim: {{lr: 0.5, iterations: 7}}\n")
    overrides = ["optim.lr=1e-3", "model.variant=pan_a", "model.weights=some.pth", "data.path=some/where"]
    config = load_config(file, overrides)
    assert (config.optim.lr, config.optim.iterations) == (1e-3, 7)
    assert config.model.variant == "pan_a"
    assert config.data.path == Path("some/where")


def test_a_saved_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(None, ["preset=short", "loss.margin=null", "data.path=x", "seed=3"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.learning_rate=1", "optim.learning_rate is unknown; did you mean optim.lr?"),
        ("lr=1", "lr is unknown; did you mean optim.lr?"),
        ("batch_size=32", "did you mean sampler.identities?"),
        ("optm.lr=1", "optm.lr is unknown; did you mean optim.lr?"),
        ("zzz=1", "zzz is unknown; the configuration has preset, data.*see `pan-train settings`"),
        ("data.path=a,b", r"give several data sets as a list: data.path=.\[a,b\]."),
        ("precision=fp8", "precision: fp8 is unknown; known are: float32, bfloat16, float16"),
        ("optim.iteration=5", "did you mean optim.iterations"),
        ("model.variant=panc", "did you mean pan_c"),
        ("preset=papper", "did you mean paper"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.lr=-1", "optim.lr"),
        ("optim=5", "optim is a group"),
        ("seed", "key=value"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_mistakes_are_answered_with_the_way_out(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, [override])


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="key: value"):
        load_config(tmp_path / "list.yaml")


@pytest.mark.parametrize(("short", "full"), [("fp16", "float16"), ("bf16", "bfloat16"), ("FP32", "float32")])
def test_short_names_of_precisions_are_accepted(short: str, full: str) -> None:
    assert load_config(None, [f"precision={short}"]).precision == full
