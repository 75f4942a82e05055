"""Reports of runs with a table of variants, without data, or without a test split, and user errors."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.cli.test_run import pan_train
from tests.training.report.conftest import SMALL, copied, parsed, section, train
from training.checkpoint import load_checkpoint
from training.errors import ConfigError, DataError
from training.experiments.ablation import run_table
from training.experiments.recipes import read_table
from training.report.page import render


def test_the_table_of_variants_in_the_parent_folder_is_shown(market: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, f"data.path={market}", "optim.iterations=1"]
    table, console = read_table("table1"), Console(quiet=True)
    assert run_table(table, ["global_pool"], range(1), overrides, tmp_path, tmp_path / "t1", [], console) == []
    folder = tmp_path / "t1" / "global_pool-seed0"
    found = parsed(render(folder, None, None, crops=True)[0])
    ours, paper = section(found, "variants").all("tbody")
    _, card = load_checkpoint(folder)
    assert card.evaluation is not None
    figures = [f"{card.evaluation.cmc[1]:.2f}", f"{card.evaluation.mAP:.2f}"]
    assert [cell.words for cell in ours.all("td")] == ["global_pool", market.name, "1", *figures, ""]
    assert [cell.words for cell in paper.all("td")] == ["table1", "global_pool", "86.0", "68.9"]
    assert "learns no parts: it pools the whole crop" in section(found, "masks").text()
    assert "no part-aware attention" in section(found, "compatibility").text()


def test_without_its_data_set_a_run_shows_its_own_records(run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path / "a<b>&c")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(re.sub(r"path: .*", f"path: {tmp_path}/gone", config))
    with (copy / "metrics.csv").open("a") as stream:
        stream.write("30,1.5,")  # a run that was killed during a write
    (tmp_path / "table.csv").write_text("somebody's own\n")
    html, warning, _ = render(copy, None, None, crops=True)
    found = parsed(html)
    assert "gone" in warning
    assert "--data" in warning
    assert [heading.words for heading in found.all("h1")] == ["a<b>&c"]
    assert len(list(section(found, "training").all("svg"))) == 10
    assert "stands alone" in section(found, "variants").text()
    assert not list(found.all("img"))
    assert all(warning in " ".join(section(found, name).text().split()) for name in ("retrieval", "lists", "masks"))


def test_without_a_test_split_masks_of_training_crops_are_shown(market: Path, run: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.name[:4]},{path.name[5:7]},train" for path in (market / "bounding_box_train").iterdir()]
    (tmp_path / "only.csv").write_text("\n".join(["path,person,camera,split", *rows]))
    folder = train(tmp_path / "run", tmp_path / "only.csv", "optim.iterations=1", "model.variant=baseline")
    html, warning, shows_people = render(folder, None, None, crops=True)
    assert "only has no query or no gallery" in warning
    assert shows_people
    found = parsed(html)
    assert len(list(section(found, "masks").all("img"))) == 4 * 7
    assert "baseline has no part-aware attention" in section(found, "compatibility").text()
    assert len(list(section(found, "compatibility").all("img"))) == 4 * (1 + 3)
    alone, compared = (
        section(parsed(render(run, None, None, crops=True, without_pam=other)[0]), "compatibility")
        for other in (None, folder)
    )
    assert len(list(compared.all("img"))) == len(list(alone.all("img"))) + 4 * (1 + 3)
    assert f"the run {folder.name}" in compared.text()
    with pytest.raises(ConfigError, match="is a run of pan_c; --without-pam takes one"):
        render(run, None, None, crops=True, without_pam=run)
    with pytest.raises(DataError, match="name a data set with a test split"):
        render(folder, tmp_path / "only.csv", None, crops=True)
    again, warning, _ = render(folder, market, None, crops=False)
    assert warning == ""
    assert "for this page" in section(parsed(again), "run").text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/none"], "is not the folder of a run"),
        (["{run}", "--data", "{tmp}/none"], "no data set at"),
    ],
)
def test_user_errors_are_one_line(arguments: list[str], words: str, run: Path, tmp_path: Path) -> None:
    done = pan_train(
        "report", *(text.format(tmp=tmp_path, run=run) for text in arguments), "--out", tmp_path / "r.html", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.html").exists()


def test_a_folder_without_a_table_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished run of `pan-train ablate`"):
        render(run, None, tmp_path, crops=False)
