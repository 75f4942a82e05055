"""Runs `pan-export` inside the process of a test: a process of its own takes seconds to import its packages."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from export.cli.app import run_app


def pan_export(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The exit status and the output of a command line."""
    words = ["pan-export", *map(str, arguments)]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        try:
            run_app()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
