"""Streams that are sent again with the same idempotency key."""

import json
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

from benchmarks.common.served import Served
from pan_reid import Client
from service.galleries.enrolment_results import Batch, EnrolledRange, Failure
from tests.service.api.routes.streams import NDJSON, persons, post, ready, wire


def test_a_repeated_stream_enrols_nothing_twice_also_after_a_crash(launch: Callable[..., Served]) -> None:
    server, lines = launch(), [b"no JSON" if n % 700 == 0 else ready(n) for n in range(3000)]
    with Client(server.url) as client:
        client.create_gallery("hall")
    seen: list[dict[str, Any]] = []
    with wire(server.url, "hall", "k1") as stream:

        def send() -> None:
            with suppress(OSError):  # the server is killed while it reads
                stream.send(b"".join(line + b"\n" for line in lines[:2500]))

        sending = threading.Thread(target=send)
        sending.start()
        while len(seen) < 1200:
            seen.append(stream.line())
        server.stop(signal.SIGKILL)
        sending.join()
    server = launch()
    with httpx.Client(base_url=server.url, timeout=60) as api:
        *results, end = post(api, "hall", lines, **{"Idempotency-Key": "k1"})
        assert results[:1200] == seen
        assert end == {"enrolled": 2995, "failed": 5}
        held = persons(api, "hall")
        assert sorted(held.values()) == sorted(f"p{n}" for n in range(3000) if n % 700)
        assert all(held[result["entry_id"]] == f"p{result['index']}" for result in results if "entry_id" in result)
        assert post(api, "hall", lines, **{"Idempotency-Key": "k1"}) == [*results, end]
        assert len(persons(api, "hall")) == 2995
        changed = api.post(
            "/v1/galleries/hall/entries/stream", content=ready(5), headers=NDJSON | {"Idempotency-Key": "k1"}
        )
        assert (changed.status_code, "use a new key" in changed.json()["detail"]) == (422, True)
        *kept, broken = post(api, "hall", [*lines[:2800], ready(9999)], **{"Idempotency-Key": "k1"})
        assert kept == results[: len(kept)]
        assert broken["error"]["code"] == "invalid-request"
        assert len(persons(api, "hall")) == 2995


def test_two_concurrent_streams_with_one_key_enrol_each_line_once(api: httpx.Client, gallery: str) -> None:
    lines = [ready(n) for n in range(2000)]
    answers: list[list[dict[str, Any]]] = [[], []]

    def send(place: int) -> None:
        with httpx.Client(base_url=api.base_url, timeout=60) as own:
            answers[place] = post(own, gallery, lines, **{"Idempotency-Key": "both"})

    threads = [threading.Thread(target=send, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1]
    assert answers[0][-1] == {"enrolled": 2000, "failed": 0}
    assert sorted(persons(api, gallery).values()) == sorted(f"p{n}" for n in range(2000))


def test_any_prefix_of_a_stream_gets_the_same_results(api: httpx.Client, gallery: str) -> None:
    lines = [b"no JSON" if n in (2, 7) else ready(n) for n in range(12)]
    key = {"Idempotency-Key": "k"}
    *results, _ = post(api, gallery, [b"\n".join(lines[:10])], **key)  # in one batch
    for count in range(11):
        *again, end = post(api, gallery, lines[:count], **key)
        assert again == results[:count]
        assert end == {
            "enrolled": sum("entry_id" in one for one in again),
            "failed": sum("error" in one for one in again),
        }
    with wire(str(api.base_url), gallery, "k") as stream:  # a client that waits for each result
        for n, line in enumerate(lines[:10]):
            stream.send(line + b"\n")
            assert stream.line() == results[n]
    *begun, broken = post(api, gallery, [*lines[:4], ready(99)], **key)
    assert begun == results[:4]
    assert (broken["error"]["code"], broken["enrolled"]) == ("invalid-request", 3)
    assert "line 5 differs from the line that was sent with this Idempotency-Key before" in broken["error"]["detail"]
    assert len(persons(api, gallery)) == 8
    *whole, end = post(api, gallery, lines, **key)
    assert (whole[:10], end) == (results, {"enrolled": 10, "failed": 2})
    assert len(persons(api, gallery)) == 10


def test_results_stored_by_earlier_versions_are_read() -> None:
    answer = {"enrolled": 2, "failed": 1, "results": [{"index": 0, "error": {"code": "c", "detail": "d"}}]}
    answer["results"] += [{"index": 1, "entry_id": 7}, {"index": 2, "entry_id": 8}]  # type: ignore[operator]
    stream = json.dumps([3, "f" * 64, 7, [[0, {"code": "c", "detail": "d"}]]])
    for kept in (json.dumps(answer), stream):
        failed, enrolled = Batch.loads(kept.encode()).outcomes(0, 3)
        assert failed == Failure(0, {"code": "c", "detail": "d"})
        assert enrolled == EnrolledRange(1, 7, 2)
    batch = Batch(3, {0: {"code": "c", "detail": "d"}}, b"8 bytes." * 3, 7)
    assert Batch.loads(batch.dumps()) == batch
