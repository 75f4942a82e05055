"""Concurrent changes of the same gallery: one request succeeds, and no request fails with 5xx."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.attack.conftest import VECTOR, Target

G = "/v1/galleries"


def concurrently(call: Callable[[int], httpx.Response], times: int) -> Counter[int]:
    """The statuses of concurrent calls; 0 for a response that was cut off."""

    def status(number: int) -> int:
        try:
            return call(number).status_code
        except httpx.RemoteProtocolError:
            return 0

    with ThreadPoolExecutor(times) as threads:
        return Counter(threads.map(status, range(times)))


def test_a_gallery_is_created_once_and_deleted_once(target: Target) -> None:
    http = target.http
    assert concurrently(lambda _: http.post(G, json={"name": "same"}), 20) == {201: 1, 409: 19}
    body = {"entries": [{"vector": VECTOR}]}
    enrolled = concurrently(lambda _: http.post(f"{G}/same/entries", json=body, headers={"Idempotency-Key": "k"}), 20)
    assert enrolled == {201: 20}
    assert http.get(f"{G}/same").json()["entries"] == 1
    assert concurrently(lambda _: http.delete(f"{G}/same"), 20) == {200: 1, 404: 19}


def test_concurrent_calls_of_all_kinds_do_not_fail(target: Target) -> None:
    http = target.http
    line = json.dumps({"vector": VECTOR, "person_id": "p"}).encode() + b"\n"
    calls: list[Callable[[str], httpx.Response]] = [
        lambda g: http.post(G, json={"name": g}),
        lambda g: http.delete(f"{G}/{g}"),
        lambda g: http.post(f"{G}/{g}/entries", json={"entries": [{"vector": VECTOR, "person_id": "p"}]}),
        lambda g: http.post(f"{G}/{g}/search", json={"vector": VECTOR, "rerank": {}}),
        lambda g: http.post(f"{G}/{g}/export"),
        lambda g: http.post(f"{G}/{g}/purge"),
        lambda g: http.get(f"{G}/{g}/persons"),
        lambda g: http.request("DELETE", f"{G}/{g}/persons", params={"person_id": "p"}),
        lambda g: http.patch(f"{G}/{g}", json={"index": "hnsw"}),
        lambda g: target.post(f"{G}/{g}/entries/stream", line * 5, "application/x-ndjson"),
        lambda _: http.get(G),
        lambda _: http.get("/metrics"),
    ]
    for round_ in range(5):
        seen = concurrently(lambda n, round_=round_: calls[(n * 7 + round_) % len(calls)](f"r{n % 2}"), 60)
        assert set(seen) <= {0, 200, 201, 204, 404, 409, 422}
    for name in ("r0", "r1"):
        http.delete(f"{G}/{name}")
