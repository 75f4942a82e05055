"""The short form of `python -m benchmarks.fuzz`, and the defects that its long form found."""

from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import play


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_random_calls_match_the_reference_model(tmp_path: Path) -> None:
    play(tmp_path, examples=8, steps=25, seed=0, shrink=False)
