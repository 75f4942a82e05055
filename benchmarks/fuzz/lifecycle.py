"""Rules: restart, SIGKILL, change the model, export to another service."""

import base64
import signal
import threading
import time
from typing import Any

import httpx
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from benchmarks.fuzz import values
from benchmarks.fuzz.api import Fault, path
from benchmarks.fuzz.model import Entry, copy_of
from benchmarks.fuzz.state import State, picks
from tests.support.bundles import DIM

_INDEXED_ENTRIES = 2_100  # entries for which the service builds an index
_BUILD_TIMEOUT = 10.0  # seconds
_STEPS_BETWEEN_STARTS = 6  # steps between restarts; a start takes as long as a hundred calls


class LifecycleRules(State):
    """Restarts, changes of the model, export and import."""

    @precondition(lambda self: self.since_start > _STEPS_BETWEEN_STARTS)
    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]), model=st.integers(0, 3))
    def restart(self, number: int, model: int) -> None:
        self.since_start = 0
        self.world.stop(number)
        self.world.loaded = 1 if model == 3 else 0
        self.world.start()

    @precondition(lambda self: self.since_start > _STEPS_BETWEEN_STARTS and self.galleries)
    @rule(pick=picks, delay=st.floats(0, 0.02), good=values.good_vectors())
    def kill_during_enrolment(self, pick: int, delay: float, good: Any) -> None:
        """After SIGKILL, an enrolment without response is complete or absent."""
        name, _ = self._pick(pick)
        items = [{"vector": good, "person_id": "killed"}] * 3
        before = self._listed(name).keys()

        def send() -> None:
            try:
                self.api.ask("POST", path(name, "entries"), {"entries": items})
            except (httpx.TransportError, Fault):
                return

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(delay)
        self.world.server.stop(signal.SIGKILL)
        thread.join()
        self.since_start = 0
        self.world.api.close()
        self.world.start()
        new = self._listed(name).keys() - before
        if len(new) not in (0, 3):
            raise Fault(f"{len(new)} of an enrolment of 3 exist after SIGKILL")
        for entry_id in new:  # so that a replay of the sequence is identical
            self.api.ask("DELETE", path(name, "entries", entry_id)).expect(204)

    @precondition(lambda self: any(one.fingerprint != self.world.fingerprint for one in self.galleries.values()))
    @rule(pick=picks, drop=st.booleans())
    def re_embed(self, pick: int, drop: bool) -> None:
        others = sorted(name for name, one in self.galleries.items() if one.fingerprint != self.world.fingerprint)
        name = others[pick % len(others)]
        gallery = self.galleries[name]
        without = [one for one, entry in gallery.entries.items() if not entry.pictured]
        query = {"drop_without_crop": "true"} if drop else {}
        answer = self.api.ask("POST", path(name, "re-embed"), params=query)
        if not answer.ok:
            if answer.status != 409 or (drop and gallery.keep_crops):
                raise Fault(f"{answer.sent} was refused with {answer.content!r}")
            return
        if without and not drop:
            raise Fault(f"{name} was re-embedded although {len(without)} entries have no stored image")
        self._wait(lambda: self.api.ask("GET", path(name, "re-embed")).expect(200).json["state"] == "current")
        gallery.fingerprint = self.world.fingerprint
        gallery.entries = {one: entry for one, entry in gallery.entries.items() if entry.pictured}
        for entry_id, entry in gallery.entries.items():
            picture = self.api.ask("GET", path(name, "entries", entry_id, "image"))
            if picture.ok:
                entry.vector = self._embedding(picture.content)

    @precondition(lambda self: self.world.loaded == 0 and self._some_entry())
    @rule(pick=picks, there=st.booleans())
    def export_and_import(self, pick: int, there: bool) -> None:
        name, gallery, _ = self._pick_entry(pick)
        if gallery.fingerprint != self.world.fingerprint or gallery.expired_ids:
            return
        file = self.api.ask("POST", path(name, "export")).expect(200).content
        to = self.world.other if there else self.api
        headers = {"Content-Type": "application/octet-stream"}
        answer = to.ask("POST", path("imported", "import"), content=file, headers=headers)
        if "imported" in self.galleries and not there:
            answer.expect(409)
            return
        answer.expect(201)
        imported = copy_of(gallery, self._listed("imported", to))
        self._check("imported", imported, to)
        if there:
            to.ask("DELETE", path("imported")).expect(200)
        else:
            self.galleries["imported"] = imported

    @precondition(lambda self: self.galleries and not self.filled)
    @rule(pick=picks, kind=st.sampled_from(["hnsw", "ivf_sq8", "ivf_pq"]), seed=st.integers(0, 3))
    def fill(self, pick: int, kind: str, seed: int) -> None:
        """Enrol enough entries for an index, once per sequence."""
        name, gallery = self._pick(pick)
        if gallery.fingerprint != self.world.fingerprint or gallery.retention_days is not None:
            return
        self.filled = True
        numbers = np.random.default_rng(seed).normal(size=(_INDEXED_ENTRIES, DIM))
        rows = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
        lines = [{"vector": base64.b64encode(row.astype("<f4").tobytes()).decode()} for row in rows]
        results = self.api.ask("POST", path(name, "entries", "stream"), lines=lines).expect(200).lines[:-1]
        gallery.entries |= {each["entry_id"]: Entry(row) for each, row in zip(results, rows, strict=True)}
        self.api.ask("PATCH", path(name), {"index": kind}).expect(200)
        gallery.index = kind
        until = time.monotonic() + _BUILD_TIMEOUT
        while self.api.ask("GET", path(name)).json["index_now"]["kind"] != kind and time.monotonic() < until:
            time.sleep(0.1)  # with a low recall, searches stay exact, which is also correct
