"""The files around the code: workflows, templates, hooks, make targets."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
FORMS = [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]


def check(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Validate against a schema that comes with the package check-jsonschema; nothing is fetched."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", sorted((GITHUB / "workflows").glob("*.yml"))),
        ("github-issue-forms", sorted(FORMS)),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_github_files_match_their_schemas(schema: str, files: list[Path]) -> None:
    assert files
    done = check(schema, *files)
    assert done.returncode == 0, done.stdout


def test_a_wrong_workflow_is_detected(tmp_path: Path) -> None:
    text = (GITHUB / "workflows" / "test.yml").read_text()
    (tmp_path / "test.yml").write_text(text.replace("runs-on:", "run-on:"))
    assert check("github-workflows", tmp_path / "test.yml").returncode != 0


@pytest.mark.parametrize("workflow", sorted((GITHUB / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_has_read_permission_only_unless_a_job_grants_more(workflow: Path) -> None:
    assert "\npermissions: {contents: read}\n" in workflow.read_text()


def test_ci_runs_make_test() -> None:
    assert "- run: .ci/run\n" in (GITHUB / "workflows" / "test.yml").read_text()
    assert (ROOT / ".ci" / "run").read_text().endswith("exec make test\n")


def targets() -> dict[str, str]:
    """What `make help` lists, with its words."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    return dict(re.findall(r"^  make ([a-z-]+) +(\S.*)$", listed, re.MULTILINE))


def test_make_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert targets().keys() == set(phony[1].split())


def test_every_make_target_in_the_documents_exists() -> None:
    naming = [*(GITHUB / "workflows").glob("*.yml"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    call = re.compile(r"(?:^[ \t]*|[`(]|run: )make ([a-z-]+(?: [a-z-]+)*)(?: *#| *$|[`)])", re.MULTILINE)
    named = {word for path in naming for words in call.findall(path.read_text()) for word in words.split()}
    named.add(json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["postCreateCommand"].split()[1])
    assert {"test", "docs", "wheel", "sbom", "audit", "hooks"} <= named
    assert named <= targets().keys()


def test_the_hooks_are_valid_and_fetch_nothing() -> None:
    config = ROOT / ".pre-commit-config.yaml"
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"repo: (\S+)", config.read_text()) == ["local"]
