"""A bundle with another model, and a data folder with a gallery of the first model."""

from pathlib import Path

import pytest

from pan_reid import Client
from service.core.settings import Settings
from tests.service.workers.models import OTHER_DIM, fill
from tests.support.bundles import write_bundle
from tests.support.servers import running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with another model and another dimension."""
    return write_bundle(tmp_path_factory.mktemp("other"), seed=1, dim=OTHER_DIM)


@pytest.fixture
def data(bundle: Path, tmp_path: Path) -> Path:
    """A data folder with a gallery of the first model that keeps its crops."""
    with running(Settings(bundle=bundle, data=tmp_path / "data")) as http, Client(str(http.base_url)) as client:
        fill(client)
    return tmp_path / "data"
