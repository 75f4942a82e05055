"""Protection from web pages of other sites while no API key is required: `Origin`, `Sec-Fetch-Site` and `Host`."""

from pathlib import Path

import httpx
import pytest

from service.core.settings import Settings
from tests.service.auth.conftest import Guarded
from tests.support.keys import bearer
from tests.support.servers import running


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:1"}, True),
        ({"Host": "[::1]:1"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Host": "192.168.0.7:80"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, True),
        ({"Host": "[::1]:1", "Origin": "http://[::1]:1"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, False),
        ({"Host": "localhost:1", "Origin": "http://attacker.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://attacker.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Host": "[nonsense"}, False),
        ({"Host": "attacker.example"}, False),
        ({"Host": "127.0.0.1.attacker.example"}, False),
        ({"Host": "1.2.3.4.5"}, False),
        ({"Host": "dead.beef"}, False),
        ({"Host": "localhost@attacker.example"}, False),
    ],
)
def test_without_keys_requests_from_pages_of_other_sites_are_refused(
    api: httpx.Client, headers: dict[str, str], allowed: bool
) -> None:
    answer = api.get("/v1/galleries", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert allowed or answer.json()["code"] == "foreign-page"


def test_without_keys_the_host_must_be_an_allowed_name(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, insecure_no_auth=True, allowed_hosts=("Pan.example",))
    with running(settings) as client:
        for host, status in [("pan.EXAMPLE:8000", 200), ("pan.example.", 200), ("other.example", 403)]:
            assert client.get("/v1/galleries", headers={"Host": host}).status_code == status


def test_with_a_key_any_host_and_site_is_accepted(guarded: Guarded) -> None:
    headers = {**bearer(guarded.keys["none"]), "Host": "pan.example", "Sec-Fetch-Site": "cross-site"}
    assert guarded.http.get("/v1/galleries", headers=headers).status_code == 200
