"""The real command line: train, stop, resume, evaluate; and checkpoints that are damaged or of another kind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from training.checkpoint import load_checkpoint, load_state
from training.embed import torch_embedder
from training.errors import CheckpointError
from training.model import PAN, BackboneConfig
from training.model.weights import load_backbone_weights

SMALL = [
    "preset=short", "model.depth=18", "model.width=0.125", "data.height=64", "data.width=32", "threads=1",
    "sampler.identities=4", "sampler.crops=2", "optim.iterations=60", "save_every=7", "seed=5",
]  # fmt: skip


def pan_train(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "training.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = pan_train("run", "--out", out, "--json", f"data.path={market}", *SMALL)
    result = json.loads(done.stdout)
    assert result["checkpoint"] == str(out / "model.safetensors")
    assert result["evaluation"]["queries"] == 6
    return out


def test_a_stopped_run_resumes_to_the_same_weights(finished: Path, market: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    arguments = ["run", "--out", str(out), f"data.path={market}", *SMALL]
    process = subprocess.Popen([sys.executable, "-m", "training.cli", *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "resume.pt").exists():  # written at step 7 for the first time
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "pan-train resume" in stderr
    assert 7 <= load_state(out / "resume.pt")["step"] < 60
    pan_train("resume", out)
    whole, resumed = load_file(finished / "model.safetensors"), load_file(out / "model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [line.split(",")[0] for line in (out / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=float)
    assert steps[-1] == "60"


def test_metrics_hold_every_loss_term_and_the_state_of_the_masks(finished: Path) -> None:
    header = (finished / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"step", "loss", "xent", "triplet", "orthogonality", "lr", "live", "overlap", "images_per_s"} <= set(header)
    assert {"grad_norm", "clip_factor", "grad_xent", "grad_triplet", "grad_orthogonality"} <= set(header)
    assert list((finished / "tensorboard").iterdir())


def test_a_folder_that_holds_a_run_is_not_overwritten(finished: Path) -> None:
    done = pan_train("run", "--out", finished, "data.path=x", check=False)
    assert done.returncode == 1
    assert "pan-train resume" in done.stderr


def test_evaluate_gives_the_figures_of_the_run(finished: Path, market: Path) -> None:
    again = json.loads(pan_train("evaluate", finished, "--data", market, "--full", "--json").stdout)
    _, card = load_checkpoint(finished)
    assert card.evaluation is not None
    assert again["mAP"] == pytest.approx(card.evaluation.mAP, abs=0.01)
    assert again["cmc"]["1"] == card.evaluation.cmc[1]
    assert card.calibration is not None  # goes into the bundle
    assert again["calibration"]["slope"] == pytest.approx(card.calibration.slope, rel=0.01)


def test_flip_averaging_is_symmetric_and_named(finished: Path, market: Path) -> None:
    network, card = load_checkpoint(finished)
    crops = np.random.default_rng(0).integers(0, 256, (3, card.input.height, card.input.width, 3), dtype=np.uint8)
    plain = torch_embedder(network, card.input)
    averaged = torch_embedder(network, card.input, flip_averaging=True)
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    mean = plain(crops) + plain(mirrored)
    np.testing.assert_allclose(averaged(crops), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(averaged(crops), averaged(mirrored), atol=1e-6)
    result = json.loads(pan_train("evaluate", finished, "--data", market, "--flip", "--json").stdout)
    assert result["data"].endswith(", flip averaging")
    assert result["queries"] == 6


def test_ready_embeddings_are_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "features.npz"
    np.savez(
        file, query=np.eye(2, 4), query_id=[1, 2], query_camera=[1, 1],
        gallery=np.eye(2, 4), gallery_id=[1, 2], gallery_camera=[2, 2],
    )  # fmt: skip
    assert json.loads(pan_train("evaluate", "--features", file, "--json").stdout)["mAP"] == 100
    np.savez(tmp_path / "less.npz", query=np.eye(2))
    done = pan_train("evaluate", "--features", tmp_path / "less.npz", check=False)
    assert (done.returncode, "lacks query_id" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--out", "{tmp}/r"], "data.path is not set"),
        (["run", "--out", "{tmp}/r", "data.path={tmp}/none"], "no data set at"),
        (["run", "--out", "{tmp}/r", "optim.larning_rate=1"], "unknown"),
        (["run", "--out", "{tmp}/r", "data.path={tmp}", "model.weights=null"], "preset=paper starts from a backbone"),
        (["resume", "{tmp}/r"], "start the run with"),
        (["evaluate"], "give CHECKPOINT"),
        (["evaluate", "--histogram", "--flip", "--data", "{tmp}"], "--flip needs a CHECKPOINT"),
        (["evaluate", "--features", "{tmp}/none.npz"], "there is no file"),
        (["evaluate", "{tmp}/none.safetensors", "--data", "{tmp}"], "no checkpoint at"),
    ],
)
def test_mistakes_end_in_one_line_and_status_1(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = pan_train(*(text.format(tmp=tmp_path) for text in arguments), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_truncated_checkpoint_is_refused(finished: Path, tmp_path: Path) -> None:
    whole = (finished / "model.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_checkpoint(tmp_path / "half.safetensors")


def test_foreign_weights_are_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no card"):
        load_checkpoint(tmp_path / "foreign.safetensors")


class Bomb:
    """A pickle that would create a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Bomb(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_state(tmp_path / "evil.pt")
    torch.save({"conv1.weight": Bomb(tmp_path / "ran")}, tmp_path / "evil.pth")
    config = BackboneConfig(depth=18)
    with pytest.raises(CheckpointError, match="more than plain tensors"):
        load_backbone_weights(torch.nn.Module(), config, str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_an_error_on_unfit_backbone_weights_names_the_settings(tmp_path: Path) -> None:
    from training.model import VARIANTS

    config = BackboneConfig(depth=18, width=0.25)
    small = VARIANTS["pan_c"].model_copy(update={"backbone": config})
    network = PAN(small)
    state = {name: t.clone() for name, t in network.backbone.state_dict().items()}
    save_file(state | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "fits.safetensors")
    load_backbone_weights(network.backbone, config, str(tmp_path / "fits.safetensors"))
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors missing.*layer1\.0\.conv1\.weight.*model\.depth"):
        load_backbone_weights(network.backbone, config, str(tmp_path / "less.safetensors"))


def table(path: Path, market: Path, query: str, gallery: str) -> Path:
    """A CSV of the crops of `market`: all of train, and of its test people the query and gallery files that match."""
    sides = {
        "train": (market / "bounding_box_train").iterdir(),
        "query": (market / "query").glob(query),
        "gallery": (market / "bounding_box_test").glob(gallery),
    }
    rows = [f"{file},{file.name[:4]},{file.name[5:7]},{side}" for side, files in sides.items() for file in files]
    path.write_text("\n".join(["path,person,camera,split", *rows]))
    return path


FEW = [*SMALL, "optim.iterations=3"]


def test_a_test_split_without_positives_is_reported_and_trained_on(market: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "one_camera.csv", market, "000?_c1*", "000[789]_c1*")
    out = tmp_path / "run"
    done = pan_train("run", "--out", out, "--json", f"data.path={data}", *FEW)
    assert json.loads(done.stdout)["evaluation"] is None
    assert "no query of one_camera has its person in the gallery under another camera" in done.stderr
    first = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").unlink()  # as a run of an older version left its folder
    assert json.loads(pan_train("resume", out, "--json").stdout)["evaluation"] is None
    assert (out / "model.safetensors").read_bytes() == first
    done = pan_train("run", "--out", tmp_path / "b", f"data.path={data}", *FEW, "evaluate_every=1", check=False)
    assert (done.returncode, "evaluate_every=0" in done.stderr) == (1, True)
    assert not (tmp_path / "b" / "resume.pt").exists()
    done = pan_train("ablate", "table2", "--row", "baseline", "--seeds", "1", "--out", tmp_path / "t",
                     f"data.path={data}", *FEW, check=False)  # fmt: skip
    assert (done.returncode, "a table needs figures" in done.stderr) == (1, True)


def test_a_test_crop_that_cannot_be_read_costs_no_network(market: Path, tmp_path: Path) -> None:
    data = table(tmp_path / "test.csv", market, "*", "000[789]*")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    data.write_text(f"{data.read_text()}\n{broken},0007,c2,gallery\n")
    out = tmp_path / "run"
    done = pan_train("run", "--out", out, f"data.path={data}", *FEW, "evaluate_every=2", check=False)
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert f"pan-train resume {out}" in " ".join(done.stderr.split())
    assert load_checkpoint(out)[1].provenance.iterations == 2
    data.write_text(data.read_text().replace(str(broken), str(next((market / "query").iterdir()))))
    assert json.loads(pan_train("resume", out, "--json").stdout)["evaluation"]["queries"] == 6
    assert load_checkpoint(out)[1].provenance.iterations == 3


def test_junk_crops_in_train_are_reported(market: Path, tmp_path: Path) -> None:
    shutil.copytree(market, tmp_path / "set")
    for name in ("0000_c1s1_000001_00.jpg", "-1_c1s1_000001_00.jpg"):
        shutil.copy(next((market / "query").iterdir()), tmp_path / "set" / "bounding_box_train" / name)
    done = pan_train("run", "--out", tmp_path / "run", f"data.path={tmp_path}/set", *FEW)
    assert "training on 24 of 26 crops; left out: 2 crops of junk or distractors" in " ".join(done.stderr.split())
