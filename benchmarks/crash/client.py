"""A client of `benchmarks.crash`: sends random requests, and records all responses and the request in flight."""

import base64
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from benchmarks.crash.report import Violation
from bundle import resize_image
from tests.support.bundles import DIM, HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import encode, person

SHARED = "shared"  # gallery that all clients write vectors to; their own galleries have images
_MAX_ENTRIES = 150  # entries of a client in a gallery; above it, the client only erases
_LONG_AGO = "2020-01-01T00:00:00Z"
_RETENTION_DAYS = 365  # of retention; expired entries are older


@dataclass(frozen=True, slots=True)
class KnownEntry:
    """An entry of a client. The id of an enrolment without a response is found later."""

    person: str
    old: bool
    entry_id: int = field(compare=False, default=0)


Entries = dict[str, dict[str, KnownEntry]]  # gallery -> the entries' tags -> entries


@dataclass(frozen=True, slots=True)
class _Enrolment:
    """A request that can be repeated."""

    path: str
    key: str
    entries: list[dict[str, Any]]


def pixels(tag: str) -> npt.NDArray[np.uint8]:
    """The image of the entry with this tag."""
    return np.asarray(person(zlib.crc32(tag.encode())))


@cache
def vector(tag: str, pictured: bool = False) -> npt.NDArray[np.float32]:
    """The (DIM,) unit vector of the entry with this tag; for an image, the reference embedding."""
    if pictured:
        found = reference_embedding(resize_image(pixels(tag), HEIGHT, WIDTH)[None])[0]
    else:
        found = np.random.default_rng(zlib.crc32(tag.encode())).normal(size=DIM)
        found /= np.linalg.norm(found)
    unit: npt.NDArray[np.float32] = found.astype(np.float32)
    return unit


class Worker:
    """A client with its own entries."""

    def __init__(self, number: int, seed: int) -> None:
        self._name = f"w{number}"
        self._random = np.random.default_rng((seed, number))
        self._count = 0
        self.acknowledged: Entries = {SHARED: {}}
        self.pending: Entries | None = None
        self._enrolment: _Enrolment | None = None
        self.completed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.failure: Exception | None = None

    def work(self, http: httpx.Client) -> None:
        """Send requests until the server is killed."""
        try:
            while True:
                self._step(http)
        except httpx.TransportError:
            return
        except Exception as error:
            self.failure = error

    def owns(self, gallery: str, tag: str) -> bool:
        """True if the entry is of this client, by gallery or tag."""
        return gallery == self._name or tag.startswith(f"{self._name}.")

    def settle(self, found: Entries, http: httpx.Client) -> None:
        """Compare with this client's entries in the restarted server. Raises Violation."""
        if found not in (self.acknowledged, self.pending):
            raise Violation(
                f"{self._name} has responses for {self.acknowledged}, and pending {self.pending}; "
                f"the service has {found}"
            )
        if self.pending is not None:
            self.lost["carried out" if found == self.pending else "not carried out"] += 1
        if self._enrolment is not None and self.pending is not None:
            ids = self._send(http, self._enrolment)
            gallery = self._enrolment.path.split("/")[3]
            tags = [entry["attributes"]["tag"] for entry in self._enrolment.entries]
            pending = self.pending[gallery]
            again = {
                tag: KnownEntry(pending[tag].person, pending[tag].old, id_) for tag, id_ in zip(tags, ids, strict=True)
            }
            if found == self.pending and [found[gallery][tag].entry_id for tag in tags] != ids:
                raise Violation(f"a second request with the key {self._enrolment.key} was answered with other entries")
            found = {**found, gallery: {**found.get(gallery, {}), **again}}
        self.acknowledged, self.pending, self._enrolment = found, None, None

    def _step(self, http: httpx.Client) -> None:
        gallery = SHARED if self._random.random() < 0.5 else self._name
        held = self.acknowledged.get(gallery)
        if held is None:
            body = {"name": gallery, "keep_crops": True}
            self._ask(http, "create gallery", {**self.acknowledged, gallery: {}}, "POST", "/v1/galleries", body)
            return
        path = f"/v1/galleries/{gallery}"
        chance = self._random.random() + 0.5 * (len(held) > _MAX_ENTRIES)
        if chance < 0.5 or not held:
            self._enrol(http, gallery, f"{path}/entries")
            return
        tag = str(self._random.choice(sorted(held)))
        if chance < 0.75:
            left = {other: kept for other, kept in held.items() if other != tag}
            path += f"/entries/{held[tag].entry_id}"
            self._ask(http, "delete entry", {**self.acknowledged, gallery: left}, "DELETE", path)
        elif chance < 0.85 or gallery == SHARED:
            left = {other: kept for other, kept in held.items() if kept.person != held[tag].person}
            path += f"/persons?person_id={held[tag].person}"
            self._ask(http, "erase person", {**self.acknowledged, gallery: left}, "DELETE", path)
        elif chance < 0.95:
            self._purge(http, gallery, held, path)
        else:
            rest = {name: entries for name, entries in self.acknowledged.items() if name != gallery}
            self._ask(http, "delete gallery", rest, "DELETE", path)

    def _purge(self, http: httpx.Client, gallery: str, held: dict[str, KnownEntry], path: str) -> None:
        """Retention: after the first response, searches exclude expired entries; after the second, they are erased."""
        left = {**self.acknowledged, gallery: {tag: kept for tag, kept in held.items() if not kept.old}}
        before = self.acknowledged
        self._ask(http, "set retention", left, "PATCH", path, {"retention_days": _RETENTION_DAYS})
        self.acknowledged = before
        self._ask(http, "purge", left, "POST", f"{path}/purge")
        self._ask(http, "lift retention", left, "PATCH", path, {"retention_days": None})

    def _enrol(self, http: httpx.Client, gallery: str, path: str) -> None:
        self._count += 1
        tags = [f"{self._name}.{self._count}.{place}" for place in range(int(self._random.integers(1, 9)))]
        new = {
            tag: KnownEntry(f"{self._name}-{self._random.integers(10)}", self._random.random() < 0.2) for tag in tags
        }
        entries = [
            {
                **self._crop(gallery, tag),
                "person_id": kept.person,
                "captured_at": _LONG_AGO if kept.old else None,
                "attributes": {"tag": tag},
            }
            for tag, kept in new.items()
        ]
        self._enrolment = _Enrolment(path, f"{self._name}.{self._count}", entries)
        self.pending = {**self.acknowledged, gallery: {**self.acknowledged[gallery], **new}}
        ids = self._send(http, self._enrolment)
        known = {tag: KnownEntry(kept.person, kept.old, id_) for (tag, kept), id_ in zip(new.items(), ids, strict=True)}
        self.acknowledged = {**self.acknowledged, gallery: {**self.acknowledged[gallery], **known}}
        self.pending = self._enrolment = None
        self.completed["enrol" if gallery == SHARED else "enrol, keeping crops"] += 1

    def _crop(self, gallery: str, tag: str) -> dict[str, Any]:
        if gallery == SHARED:
            return {"vector": vector(tag).tolist()}
        return {"image": base64.b64encode(encode(person(zlib.crc32(tag.encode())), "BMP")).decode()}

    def _send(self, http: httpx.Client, enrolment: _Enrolment) -> list[int]:
        headers = {"Idempotency-Key": enrolment.key}
        answer = http.post(enrolment.path, json={"entries": enrolment.entries}, headers=headers)
        if answer.status_code != 201:
            raise Violation(f"enrolment was answered {answer.status_code}: {answer.text}")
        return [result["entry_id"] for result in answer.json()["results"]]

    def _ask(
        self,
        http: httpx.Client,
        what: str,
        after: Entries,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
    ) -> None:
        self.pending = after
        answer = http.request(method, path, json=body)
        if not answer.is_success:
            raise Violation(f"{what} was answered {answer.status_code}: {answer.text}")
        self.acknowledged, self.pending = after, None
        self.completed[what] += 1
