"""`schemathesis run` with its default checks, against a service with keys."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common.served import Served
from tests.support.servers import pan_serve

HERE = Path(__file__).parent
EXAMPLES = 3  # of each call, besides some 2,000 cases that the document itself implies


def test_responses_match_the_openapi_document_and_undocumented_requests_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    key = pan_serve("key", "create", "tester", "--scope", "admin", "--data", str(data)).stdout.strip()
    server = Served(bundle, data, tmp_path / "log")
    try:
        options = ["-n", str(EXAMPLES), "--seed", "0", "--no-shrink", "--continue-on-failure", "--no-color"]
        found = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(HERE / "schemathesis.toml")),
                *("run", f"{server.url}/openapi.json", *options, "-H", f"Authorization: Bearer {key}"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.service.api.schemathesis_hooks",
                "PYTHONPATH": str(HERE.parents[2]),
            },
            capture_output=True,
            text=True,
            timeout=280,
        )
        report = found.stdout[found.stdout.find("= FAILURES") :]
        assert found.returncode == 0, report[:10_000] + found.stderr[-2000:]
    finally:
        assert server.stop() == 0
