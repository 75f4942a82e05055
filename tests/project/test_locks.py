"""requirements/*.txt satisfy pyproject.toml, have hashes, and are valid on other machines."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {
    "cpu": ("cpu",),
    "gpu": ("gpu",),
    "dev": ("cpu", "train", "openvino", "rtx", "otel", "dev", "docs"),
}


def pins(name: str) -> dict[str, list[Requirement]]:
    """Package -> its lines, of which there are several where versions of Python or systems differ."""
    found: dict[str, list[Requirement]] = {}
    text = re.sub(r" \\\n", " ", (ROOT / "requirements" / f"{name}.txt").read_text())
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split(" --hash=sha256:")
            assert hashes, f"{requirement} has no hash"
            assert all(re.fullmatch(r"[0-9a-f]{64}", digest.strip()) for digest in hashes)
            parsed = Requirement(requirement)
            found.setdefault(canonicalize_name(parsed.name), []).append(parsed)
    return found


def asked(*extras: str) -> list[Requirement]:
    """What the server with these extras and its client depend on, without themselves."""
    client, project = (_project(path) for path in ("client/pyproject.toml", "pyproject.toml"))
    lines = [*client["dependencies"], *project["dependencies"]]
    lines += [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [wanted for line in lines if not (wanted := Requirement(line)).name.startswith("pan-reid")]


def _project(path: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / path).read_text())["project"]
    return project


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_is_within_the_ranges_of_pyproject(name: str) -> None:
    """Fails where pyproject.toml was changed and `make lock` was not run."""
    locked = pins(name)
    for wanted in asked(*EXTRAS[name]):
        if wanted.name == "torch":
            continue
        package = canonicalize_name(wanted.name)
        assert package in locked, f"{name}.txt lacks {wanted}; run `make lock`"
        for pin in locked[package]:
            version = str(pin.specifier).removeprefix("==")
            assert wanted.specifier.contains(version), f"{name}.txt has {pin}, not {wanted}; run `make lock`"


def test_torch_has_one_version_and_its_own_lock() -> None:
    (wanted,) = (one for one in asked("train") if one.name == "torch")
    (pin,) = pins("torch")["torch"]
    assert pin.specifier == wanted.specifier
    assert f"TORCH ?= torch{wanted.specifier}\n" in (ROOT / "Makefile").read_text()
    assert not any("torch" in pins(name) for name in EXTRAS)
    dev = pins("dev")
    both = pins("torch").keys() & dev.keys()
    assert "cuda-bindings" in both  # installed one after the other, they must not undo one another
    for package in both:
        assert {str(one.specifier) for one in pins("torch")[package]} <= {str(one.specifier) for one in dev[package]}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_an_image_has_the_versions_of_the_tests(name: str) -> None:
    tested, image = pins("dev"), pins(name)
    differing = {
        package
        for package in tested.keys() & image.keys()
        if {str(pin.specifier) for pin in tested[package]} != {str(pin.specifier) for pin in image[package]}
    }
    assert differing <= {"cuda-bindings"}  # see requirements/lock


@pytest.mark.parametrize("name", [*EXTRAS, "torch"])
def test_a_lock_names_no_index_and_no_file(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^(-|--index|--find|/|\.)", text, re.MULTILINE)


def test_the_images_install_by_hash_and_the_project_without_dependencies() -> None:
    for device in ("cpu", "gpu"):
        text = (ROOT / "docker" / f"{device}.Dockerfile").read_text()
        installs = re.findall(r"pip install ([^\n\\]*)", text)
        assert installs == [
            f"--no-cache-dir --require-hashes --requirement requirements/{device}.txt",
            "--no-cache-dir --no-deps --no-build-isolation ./client . ",
        ]
