"""A server that requires API keys, which the modules of this package share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from service.core.choices import Scope
from tests.support.keys import bearer, make_key

VECTOR = {"vector": [1.0] * 64}


@dataclass(frozen=True)
class Guarded:
    """A server with one key per scope, a key without scopes (`none`), and the gallery `lobby`."""

    http: httpx.Client
    data: Path
    keys: dict[str, str]

    def ask(self, scope: str, method: str, path: str, **more: object) -> httpx.Response:
        return self.http.request(method, path, headers=bearer(self.keys[scope]), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="package")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    data = folder / "data"
    keys = {scope: make_key(data, f"{scope}-only", scope) for scope in Scope}
    keys["none"] = make_key(data, "monitoring")
    server = Served(bundle, data, folder / "log")
    with httpx.Client(base_url=server.url, timeout=30) as http:
        found = Guarded(http, data, keys)
        assert found.ask("admin", "POST", "/v1/galleries", json={"name": "lobby"}).status_code == 201
        yield found
    assert server.stop() == 0
