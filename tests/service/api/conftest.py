"""A server with narrow limits."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bundle import ImageLimits
from service.core.settings import Settings
from tests.support.servers import running


@pytest.fixture(scope="module")
def small(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with narrow limits."""
    settings = Settings(
        bundle=bundle,
        data=tmp_path_factory.mktemp("data"),
        max_body=200_000,
        max_bodies=300_000,
        max_images=4,
        max_queue=4,
        max_batch=4,
        images=ImageLimits(max_bytes=60_000, max_pixels=100_000),
    )
    with running(settings) as client:
        yield client
