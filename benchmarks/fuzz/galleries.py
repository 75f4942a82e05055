"""Rules: create, change and erase galleries."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from benchmarks.fuzz import values
from benchmarks.fuzz.api import Fault, Reply, path
from benchmarks.fuzz.model import Gallery
from benchmarks.fuzz.state import State, picks


class GalleryRules(State):
    """Creation, change, erasure and purge of galleries."""

    @rule(
        name=values.gallery_names,
        purpose=st.text(max_size=20).filter(lambda text: "\x00" not in text and text.isprintable()),
        index=st.sampled_from(["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq"]),
        retention=values.retentions,
        keep=st.booleans(),
    )
    def create_gallery(self, name: str, purpose: str, index: str, retention: float | None, keep: bool) -> None:
        body = {"name": name, "purpose": purpose, "index": index, "retention_days": retention, "keep_crops": keep}
        answer = self.api.ask("POST", "/v1/galleries", body)
        if name in self.galleries:
            answer.expect(409)
        else:
            self._created(answer.expect(201), body)

    @rule(
        member=st.sampled_from(["name", "purpose", "index", "retention_days", "keep_crops", "other"]),
        value=values.wrong_types | values.hostile_texts | values.hostile_retentions,
    )
    def create_gallery_hostile(self, member: str, value: Any) -> None:
        body = {"name": "hostile", member: value}
        answer = self.api.ask("POST", "/v1/galleries", body)
        if answer.ok:
            self._created(answer, body)

    def _created(self, answer: Reply, body: dict[str, Any]) -> None:
        shown = answer.json
        self._same_members(shown, body, answer)
        name = shown["name"]
        if name in self.galleries:
            raise Fault(f"gallery {name!r} was created twice")
        self.galleries[name] = Gallery(
            self.world.fingerprint, shown["purpose"], shown["index"], shown["retention_days"], shown["keep_crops"]
        )
        self.api.ask("GET", path(name)).expect(200)

    @precondition(lambda self: self.galleries)
    @rule(pick=picks, retention=values.retentions, keep=st.booleans(), member=st.integers(0, 2))
    def change_gallery(self, pick: int, retention: float | None, keep: bool, member: int) -> None:
        name, gallery = self._pick(pick)
        changes: list[dict[str, Any]] = [
            {"retention_days": retention},
            {"keep_crops": keep},
            {"index": "hnsw", "purpose": "é"},
        ]
        change = changes[member]
        self._purge(name, gallery)  # otherwise expired entries could reappear
        answer = self.api.ask("PATCH", path(name), change).expect(200)
        self._changed(gallery, answer, change)

    @precondition(lambda self: self.galleries)
    @rule(
        pick=picks,
        member=st.sampled_from(["purpose", "index", "retention_days", "keep_crops", "name"]),
        value=values.wrong_types | values.hostile_texts | values.hostile_retentions,
    )
    def change_gallery_hostile(self, pick: int, member: str, value: Any) -> None:
        name, gallery = self._pick(pick)
        self._purge(name, gallery)
        answer = self.api.ask("PATCH", path(name), {member: value})
        if answer.ok:
            self._changed(gallery, answer, {member: value})

    def _changed(self, gallery: Gallery, answer: Reply, change: dict[str, Any]) -> None:
        shown = answer.json
        self._same_members(shown, change, answer)
        gallery.purpose, gallery.index = shown["purpose"], shown["index"]
        gallery.retention_days, gallery.keep_crops = shown["retention_days"], shown["keep_crops"]
        if not gallery.keep_crops:
            for entry in gallery.entries.values():
                entry.pictured = False

    @precondition(lambda self: len(self.galleries) > 1)
    @rule(pick=picks)
    def delete_gallery(self, pick: int) -> None:
        name, gallery = self._pick(pick)
        receipt = self.api.ask("DELETE", path(name)).expect(200).json
        held = len(gallery.entries)
        if not held <= receipt["entries"] <= held + len(gallery.expired_ids):
            raise Fault(f"the receipt of gallery {name} counts {receipt['entries']} of {len(gallery.entries)} entries")
        del self.galleries[name]

    @precondition(lambda self: self.galleries)
    @rule(pick=picks)
    def purge(self, pick: int) -> None:
        name, gallery = self._pick(pick)
        self._purge(name, gallery)

    def _purge(self, name: str, gallery: Gallery) -> None:
        self.api.ask("POST", path(name, "purge")).expect(200)
        gallery.expired_ids.clear()
