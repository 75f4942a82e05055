"""State of the fuzz test: the servers, the model, and their comparison after every step."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from benchmarks.common.served import Served
from benchmarks.fuzz import values
from benchmarks.fuzz.api import Api, Fault, Reply, path
from benchmarks.fuzz.model import Entry, Gallery, Query, parse_time, persons, ranking_faults, same_attributes, scores
from bundle import decode_image, resize_image
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding, write_bundle

_PAGE = 7  # entries of a list, so that most lists have several pages
_LARGE_GALLERY = 200  # entries; longer lists are read in large pages
_MAX_MISSED = 2  # best hits that an approximate index may miss

picks = st.integers(0, 2**16)


class World:
    """Servers on temporary folders, shared by the examples: the service, and another service for imports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bundles = [write_bundle(folder / f"bundle{seed}", seed) for seed in (0, 1)]
        self.loaded = 0
        self._other: tuple[Served, Api] | None = None
        self.start()

    def start(self) -> None:
        """Start the service on its data folder."""
        self.server = Served(self._bundles[self.loaded], self._folder / "data", self._folder / "log")
        self.api = Api(self.server.url)
        self.fingerprint: str = self.api.ask("GET", "/v1/model").expect(200).json["fingerprint"]

    def log_tail(self) -> str:
        """The last lines that the service logged."""
        return (self._folder / "log").read_text()[-5000:]

    def stop(self, number: int) -> None:
        """End the service by a signal."""
        self.api.close()
        status = self.server.stop(number)
        if number == signal.SIGTERM and status != 0:
            raise Fault(f"SIGTERM ended the service with status {status}")

    @property
    def other(self) -> Api:
        """Another service with the same model."""
        if self._other is None:
            folder = self._folder / "other"
            server = Served(self._bundles[0], folder, self._folder / "other.log")
            self._other = server, Api(server.url)
        return self._other[1]

    def close(self) -> None:
        """Stop the servers."""
        self.stop(signal.SIGTERM)
        if self._other is not None:
            self._other[1].close()
            self._other[0].stop()


class State(RuleBasedStateMachine):
    """No call returns 5xx, and lists, counts, searches and receipts equal the model."""

    world: World  # set by the runner

    def __init__(self) -> None:
        super().__init__()
        self.galleries: dict[str, Gallery] = {}
        self.sent: list[
            tuple[str, dict[str, Any], str, bytes, Gallery]
        ] = []  # enrolments with keys, and their responses
        self.since_start = 0
        self.filled = False  # True after a gallery was made large
        for gallery in self.api.ask("GET", "/v1/galleries").expect(200).json["galleries"]:
            self.api.ask("DELETE", path(gallery["name"])).expect(200)

    @property
    def api(self) -> Api:
        """The client of the running service."""
        return self.world.api

    @invariant()
    def service_equals_model(self) -> None:
        self.since_start += 1
        shown = {one["name"] for one in self.api.ask("GET", "/v1/galleries").expect(200).json["galleries"]}
        if shown != self.galleries.keys():
            raise Fault(f"there are galleries {sorted(shown)}, expected {sorted(self.galleries)}")
        for name, gallery in self.galleries.items():
            self._check(name, gallery, self.api)

    def _check(self, name: str, gallery: Gallery, api: Api) -> None:
        listed = self._listed(name, api)
        gallery.drop_expired()
        if not gallery.entries.keys() <= listed.keys() <= gallery.entries.keys() | gallery.expired_ids:
            raise Fault(f"gallery {name} lists {sorted(listed)}, expected {sorted(gallery.entries)}")
        for entry_id, entry in gallery.entries.items():
            shown = listed[entry_id]
            wrong = [
                member
                for member, same in {
                    "person_id": shown["person_id"] == entry.person_id,
                    "camera_id": shown["camera_id"] == entry.camera_id,
                    "captured_at": parse_time(shown["captured_at"]) == entry.captured_at,
                    "attributes": same_attributes(shown["attributes"], entry.attributes),
                    "image": shown["image"] == entry.pictured,
                }.items()
                if not same
            ]
            if wrong:
                raise Fault(f"entry {entry_id} of {name} has another {wrong} than was sent: {shown}, expected {entry}")
        if not gallery.expired_ids:
            self._check_counts(name, gallery, api)
        query = Query(values.direction(len(gallery.entries)))
        body = {"vector": query.vector.tolist(), "top_k": 50, "fingerprint": gallery.fingerprint}
        self._check_hits(api.ask("POST", path(name, "search"), body).expect(200), scores(gallery, query), 50)

    def _check_counts(self, name: str, gallery: Gallery, api: Api) -> None:
        people = persons(gallery)
        view = api.ask("GET", path(name)).expect(200).json
        if (view["entries"], view["persons"]) != (len(gallery.entries), len(people)):
            raise Fault(f"gallery {name} counts {view}, expected {len(gallery.entries)} entries, {len(people)} persons")
        shown = api.ask("GET", path(name, "persons"), params={"limit": "1000"}).expect(200).json["persons"]
        if {one["person_id"]: (one["entries"], one["cameras"]) for one in shown} != people:
            raise Fault(f"gallery {name} has persons {shown}, expected {people}")

    def _listed(self, name: str, api: Api | None = None) -> dict[Any, dict[str, Any]]:
        found: dict[Any, dict[str, Any]] = {}
        known = self.galleries.get(name)
        query = {"limit": str(1000 if known and len(known.entries) > _LARGE_GALLERY else _PAGE)}
        while True:
            page = (api or self.api).ask("GET", path(name, "entries"), params=query).expect(200).json
            found |= {entry["entry_id"]: entry for entry in page["entries"]}
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    def _wait(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not done():
            if time.monotonic() > until:
                raise Fault("a gallery did not reach the loaded model within 60 s")
            time.sleep(0.02)

    def _same_members(self, shown: dict[str, Any], sent: dict[str, Any], answer: Reply) -> None:
        """An accepted value is returned unchanged, with its type."""
        for member, value in sent.items():
            if isinstance(value, bool) != isinstance(shown.get(member), bool) or shown.get(member) != value:
                raise Fault(f"{answer.sent} was accepted and shows {member} as {shown.get(member)!r}")

    def _pick(self, pick: int) -> tuple[str, Gallery]:
        name = sorted(self.galleries)[pick % len(self.galleries)]
        return name, self.galleries[name]

    def _some_entry(self) -> bool:
        return any(gallery.entries for gallery in self.galleries.values())

    def _pick_entry(self, pick: int) -> tuple[str, Gallery, int | str]:
        places = [(name, one) for name in sorted(self.galleries) for one in sorted(self.galleries[name].entries)]
        name, entry_id = places[pick % len(places)]
        return name, self.galleries[name], entry_id

    def _as_entry(self, item: dict[str, Any]) -> Entry:
        vector = values.as_vector(item["vector"]) if "vector" in item else None
        person, camera, captured = item.get("person_id"), item.get("camera_id"), item.get("captured_at")
        at = None if captured is None else parse_time(captured)
        well_typed = all(one is None or isinstance(one, str) for one in (person, camera, captured))
        if vector is None or not well_typed or (captured is not None and at is None) or "other" in item:
            raise Fault(f"this was enrolled: {str(item)[:500]}")
        return Entry(vector, person, camera, at, dict(item.get("attributes") or {}))

    def _embedding(self, picture: bytes) -> values.Vector:
        """The reference embedding in float64."""
        crop = resize_image(decode_image(picture), HEIGHT, WIDTH)
        return np.asarray(reference_embedding(crop[None], self.world.loaded)[0])

    def _check_hits(self, answer: Reply, expected: dict[Any, float], top_k: int) -> None:
        found = [(hit["entry_id"], hit["score"]) for hit in answer.json["hits"]]
        missing = _MAX_MISSED if len(expected) > _LARGE_GALLERY else 0
        if faults := ranking_faults(found, expected, top_k, missing):
            raise Fault(f"{answer.sent}: {'; '.join(faults)}")
