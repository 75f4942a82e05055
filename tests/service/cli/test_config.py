"""Settings of `pan-serve run` by option and by environment variable, and what `pan-serve config` shows of them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from benchmarks.common.served import Served
from service.cli.main import app
from tests.support.servers import pan_serve


def settings(*arguments: str, **environment: str) -> dict[str, dict[str, Any]]:
    """What `pan-serve config --json` prints, by the name of the setting."""
    shown = pan_serve("config", "--json", *arguments, environment=environment)
    assert shown.returncode == 0, shown.stderr
    return {one["name"]: one for one in json.loads(shown.stdout)["settings"]}


def test_options_variables_and_config_are_the_same_set() -> None:
    group: Any = typer.main.get_command(app)
    flags = {param.opts[0] for param in group.commands["run"].params}
    shown = settings()
    assert {one["flag"] for one in shown.values()} == flags
    standard = {"FORWARDED_ALLOW_IPS", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    for name, one in shown.items():
        expected = "PAN_" + one["flag"].removeprefix("--").replace("-", "_").upper()
        assert one["variable"] == expected
        assert one["meaning"], name
    assert not standard & {one["variable"] for one in shown.values()}  # these are second names
    assert "PAN_MAX_BATCH" in pan_serve("run", "--help").stdout


def test_every_setting_can_be_given_by_its_variable() -> None:
    other = {str: "10.0.0.1", int: "7", float: "3.5", bool: "true"}
    choices = {"PAN_ENGINE": "openvino", "PAN_DEVICE": "cpu", "PAN_PRECISION": "int8", "PAN_LOG_LEVEL": "error"}
    defaults = settings()
    environment = {
        one["variable"]: choices.get(one["variable"]) or other.get(type(one["value"]), "x") for one in defaults.values()
    }
    for one in settings(**environment).values():
        assert one["source"] == "environment", one
        assert one["value"] != defaults[one["name"]]["value"], one


def test_config_shows_the_origin_of_each_value_and_options_take_precedence() -> None:
    environment = {"PAN_MAX_BATCH": "8", "PAN_MAX_QUEUE": "300", "PAN_ALLOWED_HOST": "a.example b.example"}
    shown = settings("--max-batch", "64", FORWARDED_ALLOW_IPS="10.0.0.2", **environment)
    assert (shown["max_batch"]["value"], shown["max_batch"]["source"]) == (64, "flag")
    assert (shown["max_queue"]["value"], shown["max_queue"]["source"]) == (300, "environment")
    assert shown["allowed_host"]["value"] == ["a.example", "b.example"]
    assert shown["forwarded_allow_ips"]["variable"] == "FORWARDED_ALLOW_IPS"
    assert (shown["max_images"]["value"], shown["max_images"]["source"]) == (256, "default")
    assert (shown["bundle"]["value"], shown["bundle"]["source"]) == (None, "missing")
    table = pan_serve("config", environment={"PAN_MAX_QUEUE": "300"}).stdout
    assert "PAN_MAX_QUEUE" in next(line for line in table.splitlines() if "--max-queue" in line)


def test_a_key_is_not_shown_but_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-secret-of-the-administrator")
    shown = pan_serve("config", "--json", environment={"PAN_ADMIN_KEY_FILE": str(tmp_path / "key")})
    assert str(tmp_path / "key") in shown.stdout
    assert "a-secret" not in shown.stdout


@pytest.mark.parametrize("command", ["run", "config"])
@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("PAN_MAX_BATCH", "0", "x>=1|greater than or equal to 1"),  # by the version of typer
        ("PAN_MAX_BATCH", "many", "valid int"),
        ("PAN_DEVICE", "gpu", "'auto', 'cpu', 'cuda'"),
        ("PAN_INSECURE_NO_AUTH", "perhaps", "give true or false"),
    ],
)
def test_a_wrong_value_names_the_variable_and_the_allowed_values(
    tmp_path: Path, command: str, variable: str, value: str, allowed: str
) -> None:
    options = ("--bundle", str(tmp_path), "--data", str(tmp_path / "data"))
    refused = pan_serve(command, *options, environment={variable: value})
    assert refused.returncode == 2
    assert f"the environment variable {variable}" in refused.stderr
    assert re.search(allowed, refused.stderr)
    assert not (tmp_path / "data").exists()


def test_a_missing_setting_names_option_and_variable() -> None:
    refused = pan_serve("run", environment={"PAN_DATA": "/nonexistent"})
    assert refused.returncode == 2
    assert "'--bundle' (or the environment variable PAN_BUNDLE)" in refused.stderr


def test_the_service_runs_by_variables_alone_and_warns_of_unknown_ones(
    launch: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAN_MAX_TOP_K", "5")
    monkeypatch.setenv("PAN_MAX_BATH", "8")
    server = launch()
    assert httpx.post(f"{server.url}/v1/galleries", json={"name": "g"}).status_code == 201
    asked = {"entry_ids": [1], "top_k": 6}
    assert "5" in httpx.post(f"{server.url}/v1/galleries/g/search", json=asked).json()["detail"]
    assert server.stop() == 0
    assert "PAN_MAX_BATH is not a setting of pan-serve; did you mean PAN_MAX_BATCH?" in (tmp_path / "log").read_text()
    shown = pan_serve("config")
    assert "PAN_MAX_BATH is not a setting of pan-serve; did you mean PAN_MAX_BATCH?" in shown.stderr
    data = str(tmp_path / "data")
    assert pan_serve("key", "create", "a", environment={"PAN_DATA": data}).returncode == 0


def test_the_defaults_of_the_options_are_those_of_the_settings(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import service.api.server as server
from service.cli.main import main
from service.core.settings import Settings

async def serve(settings, *_):
    expected = Settings(bundle=Path({str(tmp_path)!r}), data=Path({str(tmp_path)!r}))
    assert settings == expected, (settings, expected)

server.serve = serve
sys.argv = ["pan-serve", "run", "--bundle", {str(tmp_path)!r}, "--data", {str(tmp_path)!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
