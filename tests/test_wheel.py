"""The wheel, built and installed where nothing of the source tree can be imported."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bundle", "training", "export", "service")
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "client", *PACKAGES)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build/ is left in the tree; the client's wheel lies beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    leave_out = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=leave_out)
        else:
            shutil.copy(ROOT / name, source / name)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    subprocess.run([sys.executable, "-m", "pip", *build, str(source), str(source / "client")], check=True, timeout=120)
    (built,) = folder.glob("pan_reid-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with both wheels in it; only the dependencies come from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    # As a path and not as a site directory: the .pth file there that leads to the source tree is not read.
    (packages / "dependencies.pth").write_text(str(Path(typer.__file__).parents[1]))
    install = ("install", "--quiet", "--no-deps", "--no-index", *map(str, wheel.parent.glob("*.whl")))
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True, timeout=120)
    return folder


def _run(environment: Path, *command: str) -> str:
    """What a command of the environment prints, run where no source is and without settings of the tests."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    program = [str(environment / "bin" / command[0]), *command[1:]]
    done = subprocess.run(
        program, cwd=environment, env=settings, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    """A sub-package without an __init__, or a page or image that package-data forgets, would be missing."""
    files = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files


def test_the_commands_run_from_the_wheel(environment: Path) -> None:
    where = _run(environment, "python", "-c", "import service; print(service.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    assert "re-embed" in _run(environment, "pan-serve", "--help")
    assert "evaluate" in _run(environment, "pan-train", "--help")
    assert "tensorrt" in _run(environment, "pan-export", "--help")
    assert _run(environment, "pan-serve", "openapi") == (ROOT / "docs" / "openapi.json").read_text()


def test_the_data_of_the_packages_is_found_once_installed(environment: Path) -> None:
    program = (
        "from importlib.resources import files\n"
        "print(len(files('training.report').joinpath('page.html').read_text()))\n"
        f"for name in {PACKAGES}: assert files(name).joinpath('py.typed').is_file(), name\n"
    )
    assert int(_run(environment, "python", "-c", program)) > 1000
