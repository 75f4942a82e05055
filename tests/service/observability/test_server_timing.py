"""The header Server-Timing."""

import re
import time

import httpx

from tests.support.pictures import png

PART = re.compile(r"([a-z-]+);dur=([0-9.]+)")


def parts(answer: httpx.Response) -> dict[str, float]:
    assert answer.is_success, answer.text
    return {name: float(milliseconds) for name, milliseconds in PART.findall(answer.headers["server-timing"])}


def test_a_search_reports_its_stages_within_the_time_that_the_client_measured(api: httpx.Client) -> None:
    api.post("/v1/galleries", json={"name": "timed"}).raise_for_status()
    picture = {"content": png(1), "headers": {"content-type": "image/png"}}
    enrolled = api.post("/v1/galleries/timed/entries", **picture)
    assert set(parts(enrolled)) == {"decode", "engine-wait", "engine", "commit", "total"}
    began = time.perf_counter()
    searched = api.post("/v1/galleries/timed/search", **picture)
    waited = 1000 * (time.perf_counter() - began)
    found = parts(searched)
    assert set(found) == {"decode", "engine-wait", "engine", "search-wait", "search", "commit", "total"}
    sequential = sum(found[name] for name in ("decode", "engine-wait", "engine", "search-wait", "search"))
    assert 0 < sequential <= found["total"] + 0.1  # each value is rounded
    assert found["commit"] <= found["total"] <= waited


def test_a_request_without_stages_reports_its_total_only(api: httpx.Client) -> None:
    assert set(parts(api.get("/v1/model"))) == {"total"}
