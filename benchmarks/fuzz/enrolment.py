"""Rules: enrol crops, change and erase entries."""

import base64
import json
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from benchmarks.fuzz import values
from benchmarks.fuzz.api import Fault, path
from benchmarks.fuzz.model import Entry, Gallery, parse_time
from benchmarks.fuzz.state import State, picks


class EnrolmentRules(State):
    """Enrolment by request and by stream, and changes of entries and persons."""

    @precondition(lambda self: self.galleries)
    @rule(
        pick=picks,
        vectors=st.lists(values.good_vectors(), min_size=1, max_size=5),
        person=st.none() | values.person_ids,
        camera=st.none() | values.camera_ids,
        captured=values.times,
        attributes=values.attributes,
        streamed=st.booleans(),
        key=st.none() | st.sampled_from(["k1", "k2"]),
    )
    def enrol(
        self,
        pick: int,
        vectors: list[Any],
        person: str | None,
        camera: str | None,
        captured: str | None,
        attributes: dict[str, Any],
        streamed: bool,
        key: str | None,
    ) -> None:
        info = {"person_id": person, "camera_id": camera, "captured_at": captured, "attributes": attributes}
        items = [{"vector": vector, **info} for vector in vectors]
        name, gallery = self._pick(pick)
        if streamed or any(sent[2] == key and sent[4] is gallery for sent in self.sent):
            key = None
        refused = self._enrol(name, gallery, items, streamed, key)
        at = parse_time(captured)
        expired = gallery.expired(Entry(np.zeros(1), captured_at=at))
        if refused and not expired and gallery.fingerprint == self.world.fingerprint:
            raise Fault(f"good entries were refused: {refused}")

    @precondition(lambda self: self.galleries)
    @rule(
        pick=picks,
        good=values.good_vectors(),
        member=st.sampled_from(["vector", "image", "person_id", "camera_id", "captured_at", "attributes", "other"]),
        data=st.data(),
        streamed=st.booleans(),
    )
    def enrol_hostile(self, pick: int, good: Any, member: str, data: st.DataObject, streamed: bool) -> None:
        strategies: dict[str, st.SearchStrategy[Any]] = {
            "vector": values.hostile_vectors,
            "image": values.hostile_texts | values.wrong_types,
            "captured_at": values.hostile_times,
            "attributes": values.hostile_attributes,
        }
        value = data.draw(strategies.get(member, values.hostile_texts | values.wrong_types))
        bad = {member: value} if member in ("vector", "image") else {"vector": good, member: value}
        name, gallery = self._pick(pick)
        self._enrol(name, gallery, [{"vector": good, "person_id": "p1"}, bad], streamed, None)

    @precondition(lambda self: self.sent)
    @rule(pick=picks)
    def enrol_again(self, pick: int) -> None:
        """A repeated request with its key gets the same response and enrols nothing."""
        where, body, key, answer, gallery = self.sent[pick % len(self.sent)]
        if gallery not in self.galleries.values() or gallery.fingerprint != self.world.fingerprint:
            return
        again = self.api.ask("POST", where, body, headers={"Idempotency-Key": key}).expect(200, 201, 207)
        if json.loads(again.content) != json.loads(answer):
            raise Fault(f"key {key} was answered {answer!r} first and then {again.content!r}")

    def _enrol(self, name: str, gallery: Gallery, items: list[Any], streamed: bool, key: str | None) -> str:
        """Enrol, and update the model. Returns the refused items."""
        headers = {} if key is None else {"Idempotency-Key": key}
        if streamed:
            answer = self.api.ask("POST", path(name, "entries", "stream"), lines=items, headers=headers)
            results = answer.lines[:-1] if answer.ok else []
            if answer.ok and (answer.lines[-1].get("error") or len(results) != len(items)):
                raise Fault(f"a stream of {len(items)} lines ended with {answer.lines}")
        else:
            where, body = path(name, "entries"), {"entries": items}
            answer = self.api.ask("POST", where, body, headers=headers)
            results = answer.json["results"] if answer.ok else []
            if key is not None and answer.ok:
                self.sent.append((where, body, key, answer.content, gallery))
        refused = [] if answer.ok else [answer.content.decode()]
        for result in results:
            item = items[result["index"]]
            if "entry_id" in result and result["entry_id"] is not None:
                gallery.entries[result["entry_id"]] = self._as_entry(item)
            else:
                refused.append(str(result["error"]))
        return "; ".join(refused)

    @precondition(lambda self: self.galleries)
    @rule(
        pick=picks,
        pictures=st.lists(values.pictures | values.hostile_pictures, min_size=1, max_size=3),
        person=values.person_ids,
        as_json=st.booleans(),
    )
    def enrol_pictures(self, pick: int, pictures: list[bytes], person: str, as_json: bool) -> None:
        name, gallery = self._pick(pick)
        info = {"person_id": person, "camera_id": "c1"}
        if as_json:
            items = [{"image": base64.b64encode(data).decode(), **info} for data in pictures]
            answer = self.api.ask("POST", path(name, "entries"), {"entries": items})
        else:
            files = [("images", (f"{place}.bin", data)) for place, data in enumerate(pictures)]
            form = {"metadata": json.dumps([info] * len(pictures))}
            answer = self.api.ask("POST", path(name, "entries"), files=files, data=form)
        for result in answer.json["results"] if answer.ok else []:
            if result.get("entry_id") is not None:
                vector = self._embedding(pictures[result["index"]])
                gallery.entries[result["entry_id"]] = Entry(vector, person, "c1", pictured=gallery.keep_crops)

    @precondition(lambda self: self._some_entry())
    @rule(
        pick=picks,
        person=st.none() | values.person_ids,
        captured=values.times,
        attributes=values.attributes,
        given=st.sets(st.sampled_from(["person_id", "captured_at", "attributes"]), min_size=1),
    )
    def change_entry(
        self, pick: int, person: str | None, captured: str | None, attributes: dict[str, Any], given: set[str]
    ) -> None:
        name, gallery, entry_id = self._pick_entry(pick)
        body = {"person_id": person, "captured_at": captured, "attributes": attributes}
        self.api.ask("PATCH", path(name, "entries", entry_id), {one: body[one] for one in given}).expect(200)
        self._changed_entry(gallery.entries[entry_id], {one: body[one] for one in given})

    @precondition(lambda self: self._some_entry())
    @rule(pick=picks, member=st.sampled_from(["person_id", "camera_id", "captured_at", "attributes"]), data=st.data())
    def change_entry_hostile(self, pick: int, member: str, data: st.DataObject) -> None:
        strategies = {"captured_at": values.hostile_times, "attributes": values.hostile_attributes}
        value = data.draw(strategies.get(member, values.hostile_texts | values.wrong_types))
        name, gallery, entry_id = self._pick_entry(pick)
        answer = self.api.ask("PATCH", path(name, "entries", entry_id), {member: value})
        if answer.ok:
            self._changed_entry(gallery.entries[entry_id], {member: value})

    def _changed_entry(self, entry: Entry, change: dict[str, Any]) -> None:
        wanted = self._as_entry({"vector": [1.0] * 64, **change})
        for member in change:
            setattr(entry, member, getattr(wanted, member))

    @precondition(lambda self: self._some_entry())
    @rule(pick=picks)
    def delete_entry(self, pick: int) -> None:
        name, gallery, entry_id = self._pick_entry(pick)
        self.api.ask("DELETE", path(name, "entries", entry_id)).expect(204)
        del gallery.entries[entry_id]
        self.api.ask("GET", path(name, "entries", entry_id)).expect(404)

    @precondition(lambda self: self.galleries)
    @rule(pick=picks, person=values.person_ids | values.hostile_texts)
    def erase_person(self, pick: int, person: str) -> None:
        name, gallery = self._pick(pick)
        theirs = {one for one, entry in gallery.entries.items() if entry.person_id == person}
        answer = self.api.ask("DELETE", path(name, "persons"), params={"person_id": person})
        if theirs:
            answer.expect(200)
        if answer.ok:
            if answer.json.get("person_id") != person:
                raise Fault(f"{answer.sent} erased {answer.json}")
            gallery.entries = {one: entry for one, entry in gallery.entries.items() if one not in theirs}
