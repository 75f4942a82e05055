"""The distribution `pan-reid-client`: its wheel works with its declared dependencies alone."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pyproject(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def link_with_dependencies(name: str, target: Path, linked: set[str]) -> None:
    """Link an installed distribution and those it requires into a folder."""
    if name in linked:
        return
    linked.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:  # a requirement of another platform, or an extra
        return
    for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
        if not (target / top).exists():
            (target / top).symlink_to(Path(str(found.locate_file(top))))
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            link_with_dependencies(requirement_name(requirement), target, linked)


def requirement_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    leave_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT / "client", folder / "client", ignore=leave_out)
    program = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what it declares."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    linked: set[str] = set()
    for requirement in pyproject(ROOT / "client")["dependencies"]:
        link_with_dependencies(requirement_name(requirement), packages, linked)
    return folder / "bin" / "python"


def run(python: Path, program: str) -> str:
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=False, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_only_the_package_with_its_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"pan_reid", f"pan_reid_client-{_version()}.dist-info"}
    assert {"pan_reid/py.typed", "pan_reid/__init__.py", "pan_reid/schemas/base.py"} <= names


def test_the_wheel_alone_provides_a_working_client(clean: Path) -> None:
    program = """
import sys
from pan_reid import AsyncClient, Client
import pan_reid.schemas
with Client("http://127.0.0.1:1", retries=0) as client:
    try:
        client.galleries()
    except pan_reid.ClientError as error:
        print(error)
print(*(name for name in ("service", "bundle", "training", "export") if name in sys.modules))
"""
    assert "no answer from http://127.0.0.1:1" in run(clean, program)
    missing = "import importlib.util as u; print([u.find_spec(n) for n in ('service', 'bundle', 'orjson', 'fastapi')])"
    assert run(clean, missing).strip() == "[None, None, None, None]"


def test_numpy_is_loaded_with_the_first_vector_only(clean: Path) -> None:
    program = """
import sys
from pan_reid import AsyncClient, Client, Crop, VectorCrop
print("numpy" in sys.modules)
from pan_reid.vectors import encode_vector
print(encode_vector([1.0, -2.0]), "numpy" in sys.modules)
"""
    assert run(clean, program).split() == ["False", "AACAPwAAAMA=", "True"]


def test_the_client_has_five_dependencies() -> None:
    names = {requirement_name(one) for one in pyproject(ROOT / "client")["dependencies"]}
    assert names == {"httpx", "numpy", "pydantic", "rich", "typer"}


def test_the_service_requires_this_release_of_the_client() -> None:
    assert f"pan-reid-client=={_version()}" in pyproject(ROOT)["dependencies"]


def _version() -> str:
    return str(pyproject(ROOT / "client")["version"])
