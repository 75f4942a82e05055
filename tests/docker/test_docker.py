"""The Dockerfiles and the compose file, without a build; `make image-check` builds and runs an image."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import pan_serve

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
DEVICES = ("cpu", "gpu")
BESIDE_PYTHON = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def compose_command() -> list[str]:
    """`docker compose`, or the older `docker-compose`."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    compose = shutil.which("docker-compose", path=BESIDE_PYTHON)
    if compose is None:
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    return [compose]


def compose_services(profile: str | None) -> set[str]:
    """The services that `docker compose up` starts with a profile in the environment, or with nothing set."""
    command = compose_command()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "PAN_"))}
    if profile is not None:
        environment["COMPOSE_PROFILES"] = profile
    listed = subprocess.run(
        [*command, "config", "--services"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    return set(listed.stdout.split())


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The final stage of a Dockerfile, as (instruction, arguments)."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)).splitlines()
    parsed = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]
    last = max(index for index, (word, _) in enumerate(parsed) if word == "FROM")
    return parsed[last:]


def environment(stage: list[tuple[str, str]]) -> list[str]:
    """The variables that a stage of a Dockerfile sets, as NAME=VALUE."""
    return [setting for word, rest in stage if word == "ENV" for setting in rest.split()]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, Any] = compose["services"]
    return found


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_reports_nothing(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=BESIDE_PYTHON)
    if hadolint is None:
        pytest.skip("hadolint is not installed; it comes with the extra [dev]")
    verdict = subprocess.run([hadolint, str(dockerfile)], capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize("device", DEVICES)
def test_the_final_image_runs_as_a_numbered_user_with_a_health_check_and_without_telemetry(device: str) -> None:
    final = instructions(ROOT / "docker" / f"{device}.Dockerfile")
    last = dict(final)
    user, _, group = last["USER"].partition(":")
    assert int(user) > 0  # a number, so that an orchestrator can see that it is not root
    assert int(group) > 0
    assert "/healthz" in last["HEALTHCHECK"]
    assert "ORT_DISABLE_TELEMETRY=1" in environment(final)
    assert json.loads(last["ENTRYPOINT"]) == ["pan-serve", "run"]
    assert not any(word == "COPY" and "--from=build" not in rest for word, rest in final)


@pytest.mark.parametrize("device", DEVICES)
def test_the_image_sets_only_settings_that_pan_serve_knows(device: str) -> None:
    values = dict(one.split("=", 1) for one in environment(instructions(ROOT / "docker" / f"{device}.Dockerfile")))
    settings = {name: value for name, value in values.items() if name.startswith("PAN_")}
    shown = pan_serve("config", "--json", environment=settings)
    assert shown.stderr == ""
    found = {one["variable"]: str(one["value"]) for one in json.loads(shown.stdout)["settings"]}
    assert settings.items() <= found.items()
    # With this setting, an image would accept requests from the network without a key.
    assert "PAN_INSECURE_NO_AUTH" not in settings


def test_both_images_have_the_same_instructions_except_for_the_device() -> None:
    cpu, gpu = (instructions(ROOT / "docker" / f"{device}.Dockerfile") for device in DEVICES)
    for word in ("COPY", "RUN", "USER", "WORKDIR", "VOLUME", "EXPOSE", "ENTRYPOINT"):
        assert dict(cpu)[word] == dict(gpu)[word]
    assert [*environment(cpu), "PAN_DEVICE=cuda"] == environment(gpu)


def test_the_build_context_holds_no_training_code_data_or_weights() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    admitted = {line[1:] for line in patterns if line.startswith("!")}
    assert admitted == {
        *("LICENSE", "README.md", "pyproject.toml", "client", "bundle", "service"),
        *("requirements/cpu.txt", "requirements/gpu.txt"),
    }


@pytest.mark.parametrize("device", DEVICES)
def test_a_profile_starts_its_own_service_only(device: str) -> None:
    started = compose_services(device)
    version = subprocess.run([*compose_command(), "version", "--short"], capture_output=True, text=True, check=True)
    if version.stdout.startswith("1."):
        pytest.skip("`config` of Compose 1 lists the services of every profile")
    assert started == {device}


def test_compose_starts_the_cpu_service_by_default() -> None:
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text().splitlines()
    assert "cpu" in compose_services(None)


@pytest.mark.parametrize("device", DEVICES)
def test_a_service_is_locked_down(services: dict[str, Any], device: str) -> None:
    service = services[device]
    assert service["profiles"] == [device]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service  # the image's own
    assert "privileged" not in service
    # Before the first key exists, every caller has every scope, so the port must be on loopback.
    assert service["environment"] == {"PAN_INSECURE_NO_AUTH": "true"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    bundle, data = service["volumes"]
    assert (bundle["target"], bundle["read_only"]) == ("/bundle", True)
    assert (data["target"], data["type"]) == ("/data", "volume")
    assert service["tmpfs"][0].startswith("/tmp:")


def test_only_the_gpu_service_reserves_a_gpu(services: dict[str, Any]) -> None:
    assert "deploy" not in services["cpu"]
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
