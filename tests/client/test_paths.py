"""Raw request paths that clients must not send: with dots, encoded slashes and empty segments."""

import http.client
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.support.bundles import DIM
from tests.support.servers import all_entries

VECTOR = np.random.default_rng(0).normal(size=DIM).astype(np.float32)


def _raw(api: httpx.Client, method: str, target: str) -> int:
    """Send a request with an unmodified target. Returns the status."""
    connection = http.client.HTTPConnection(urlsplit(str(api.base_url)).netloc, timeout=30)
    connection.putrequest(method, target, skip_accept_encoding=True)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    "path",
    [
        "/v1/galleries/{g}/persons/{x}",
        "/v1/galleries/{g}/persons/{x}?person_id=p",
        "/v1/galleries/{g}/entries/{x}",
        "/v1/galleries/{x}/{g}",
        "/v1/galleries/{x}",
        "/v1/galleries/{g}/{x}",
        "/v1/galleries/{g}/persons/{x}/{x}/{g}",
    ],
)
def test_a_path_with_dots_slashes_or_empty_segments_changes_nothing(api: httpx.Client, gallery: str, path: str) -> None:
    entries = [{"vector": VECTOR.tolist(), "person_id": person} for person in ("p", "..", ".")]
    assert api.post(f"/v1/galleries/{gallery}/entries", json={"entries": entries}).status_code == 201
    before = all_entries(api)
    spellings = [
        "..",
        ".",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%2e",
        "",
        "%2F",
        "..%2F..",
        "%5c..",
        "%00",
        "%0a",
        "1%2f",
    ]
    for spelling in spellings:
        for method in ("DELETE", "PATCH", "POST"):
            assert _raw(api, method, path.format(g=gallery, x=spelling)) in {404, 405, 415, 422}, (method, spelling)
    assert all_entries(api) == before


def test_an_encoded_slash_does_not_divide_a_path(api: httpx.Client, gallery: str) -> None:
    for method, target in (
        ("GET", f"/v1/galleries%2F{gallery}"),
        ("DELETE", f"/v1/galleries%2F{gallery}"),
        ("DELETE", f"/v1/galleries/{gallery}%2fpersons?person_id=p"),
    ):
        assert _raw(api, method, target) == 404
    assert gallery in all_entries(api)
