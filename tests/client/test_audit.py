"""The audit log by the API, by both clients and by `pan-reid audit`, against a real server."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from pan_reid import ApiError, AsyncClient, Client, Crop, EntryInfo
from pan_reid.schemas import AuditRecord
from service.core.settings import Settings
from tests.support.pictures import png
from tests.support.servers import pan_reid, pan_serve, running


class Audited(NamedTuple):
    """A server with two keys, after some calls with them."""

    http: httpx.Client
    url: str
    admin: str
    searcher: str


@pytest.fixture(scope="module")
def audited(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    data = tmp_path_factory.mktemp("data")
    keys = [
        pan_serve("key", "create", name, "--scope", scope, "--data", str(data)).stdout.strip()
        for name, scope in (("boss", "admin"), ("gate", "search"))
    ]
    with running(Settings(bundle=bundle, data=data)) as http:
        url = str(http.base_url)
        with Client(url, api_key=keys[0]) as client:
            for name in ("hall", "shop"):
                client.create_gallery(name)
                client.enrol(name, [Crop(png(person), EntryInfo(person_id=f"p{person}")) for person in (1, 2)])
            client.erase_person("shop", "p1")
            client.delete_gallery("shop")
        with Client(url, api_key=keys[1]) as client:
            client.search("hall", png(1), png(1, 2))
            with pytest.raises(ApiError):
                list(client.audit())
        yield Audited(http, url, *keys)


def actions(records: list[AuditRecord]) -> list[tuple[str, str, str | None, int]]:
    return [(one.caller, one.action, one.gallery, one.count) for one in records]


def test_the_log_has_every_action_newest_first_also_of_a_deleted_gallery(audited: Audited) -> None:
    with Client(audited.url, api_key=audited.admin) as client:
        records = [one for one in client.audit() if one.action not in ("create-key", "refused")]
    assert actions(records) == [
        ("gate", "search", "hall", 2),
        ("boss", "delete-gallery", "shop", 1),
        ("boss", "erase-person", "shop", 1),
        ("boss", "enrol", "shop", 2),
        ("boss", "create-gallery", "shop", 0),
        ("boss", "enrol", "hall", 2),
        ("boss", "create-gallery", "hall", 0),
    ]
    assert datetime.now(UTC) - records[0].at < timedelta(minutes=10)


def test_filters_apply_together_and_the_async_client_gets_the_same(audited: Audited) -> None:
    async def fetch(**filters: str) -> list[AuditRecord]:
        async with AsyncClient(audited.url, api_key=audited.admin) as client:
            return [one async for one in client.audit(**filters)]

    filters = {"caller": "boss", "gallery": "shop", "action": "enrol"}
    with Client(audited.url, api_key=audited.admin) as client:
        found = list(client.audit(**filters))
        assert actions(found) == [("boss", "enrol", "shop", 2)]
        assert asyncio.run(fetch(**filters)) == found
        search = next(client.audit(action="search"))
        older = list(client.audit(until=search.at))
        assert older
        assert all(one.at < search.at for one in older)
        assert list(client.audit(since=search.at, caller="gate", action="search")) == [search]
        assert list(client.audit(caller="nobody")) == []


def test_pages_of_one_record_together_are_the_whole_log(audited: Audited) -> None:
    def page(**query: str | int) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {audited.admin}"}
        answer = audited.http.get("/v1/audit", params={"caller": "boss", **query}, headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    seen: list[object] = []
    cursor: dict[str, str] = {}
    while True:
        one = page(limit=2, **cursor)
        records = one["records"]
        assert isinstance(records, list)
        seen += records
        if one["next_cursor"] is None:
            break
        cursor = {"cursor": str(one["next_cursor"])}
    assert seen == page(limit=1000)["records"]
    assert len(seen) == 6


@pytest.mark.parametrize(
    "query", [{"since": "yesterday"}, {"since": "2024-05-01T08:00:00"}, {"cursor": "0"}, {"limit": "0"}, {"who": "a"}]
)
def test_a_wrong_query_is_refused_by_name(audited: Audited, query: dict[str, str]) -> None:
    answer = audited.http.get("/v1/audit", params=query, headers={"Authorization": f"Bearer {audited.admin}"})
    assert answer.status_code == 422
    assert next(iter(query)) in answer.json()["detail"]


def test_only_the_scope_admin_reads_the_log(audited: Audited) -> None:
    assert audited.http.get("/v1/audit").status_code == 401
    refused = audited.http.get("/v1/audit", headers={"Authorization": f"Bearer {audited.searcher}"})
    assert (refused.status_code, "admin" in refused.json()["detail"]) == (403, True)


def test_the_command_prints_a_table_and_json(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAN_API_KEY", audited.admin)
    table = pan_reid("audit", "--url", audited.url, "--caller", "gate", "--action", "search")
    assert table.returncode == 0, table.stderr
    assert [word in table.stdout for word in ("gate", "search", "hall", "boss")] == [True, True, True, False]
    listed = pan_reid(
        "audit", "--url", audited.url, "--gallery", "shop", "--limit", "2", "--json", "--from", "2024-01-01"
    )
    assert [one["action"] for one in json.loads(listed.stdout)] == ["delete-gallery", "erase-person"]
    monkeypatch.setenv("PAN_API_KEY", audited.searcher)
    refused = pan_reid("audit", "--url", audited.url)
    assert (refused.returncode, "no scope admin" in refused.stderr) == (1, True)
