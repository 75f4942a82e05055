"""SIGKILL at random times during re-embedding from one model to another and back, with concurrent changes.

    python -m benchmarks.crash.reembedding [--rounds 60] [--seed 0] [--json]

Each round starts the server with the target model, which continues the re-embedding, deletes and relabels entries, and
kills the server within 0.3 s. After a kill, all vectors must be of the same model and equal the reference embeddings of
the stored images, the entries must be those of the responses, and the progress must not decrease. Otherwise the exit
status is 1.
"""

import base64
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import numpy.typing as npt
import orjson
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.common.served import Served
from benchmarks.crash.report import Violation, report
from bundle import resize_image
from pan_reid import Client, ClientError, Crop
from pan_reid.schemas import EntryInfo
from tests.support.bundles import DIM, HEIGHT, WIDTH, reference_embedding, write_bundle
from tests.support.pictures import png

MAX_DELAY = 0.3  # seconds from the first change to the SIGKILL
PEOPLE = 250
DIMS = (DIM, 32)  # dimensions of the two models
_CHANGE_INTERVAL = 0.02  # seconds between two changes
_MIN_COSINE = 0.999  # minimum cosine between the vectors of an image and of its stored JPEG


class Subject:
    """A data folder, its server, and the client's record of persons by entry; one request may be without response."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.bundles = [write_bundle(folder / f"model{n}", seed=n, dim=dim) for n, dim in enumerate(DIMS)]
        self.folder = folder
        self.random = np.random.default_rng(seed)
        self.acknowledged: dict[int, str] = {}
        self.pending: dict[int, str] | None = None
        self.pictures: dict[int, npt.NDArray[np.uint8]] = {}
        self.goal = 0
        self.done = 0  # re-embedded entries at the end of the previous round; `entries` is their total:
        self.entries = 0
        self.counts: Counter[str] = Counter()

    def serve(self) -> Served:
        """Start the server with the target model."""
        return Served(self.bundles[self.goal], self.folder / "data", self.folder / "log")

    def arrive(self, client: Client) -> None:
        """Refill the re-embedded gallery, and record its entries."""
        people = range(len(self.acknowledged), PEOPLE)
        crops = [Crop(png(n), EntryInfo(person_id=f"p{n}")) for n in people]
        if crops:
            ids = [result.entry_id for result in client.enrol("g", crops).results]
            self.acknowledged |= {id_: f"p{n}" for id_, n in zip(ids, people, strict=True) if id_ is not None}
        for entry in self.acknowledged.keys() - self.pictures.keys():
            kept = np.asarray(Image.open(BytesIO(client.image("g", entry))))
            self.pictures[entry] = resize_image(kept, HEIGHT, WIDTH)
        self.goal = 1 - self.goal

    def change(self, url: str) -> None:
        """Delete and relabel entries until the server is killed."""
        with (
            httpx.Client(base_url=f"{url}/v1/galleries/g/entries", timeout=30) as http,
            suppress(httpx.TransportError),
        ):
            while True:
                entry = int(self.random.choice(sorted(self.acknowledged)))
                if self.random.random() < 0.3:
                    self.pending = {id_: person for id_, person in self.acknowledged.items() if id_ != entry}
                    answer = http.delete(f"/{entry}")
                else:
                    self.counts["labels"] += 1
                    name = f"q{self.counts['labels']}"
                    self.pending = {**self.acknowledged, entry: name}
                    answer = http.patch(f"/{entry}", json={"person_id": name})
                answer.raise_for_status()
                self.acknowledged, self.pending = self.pending, None
                self.counts["acknowledged changes"] += 1
                time.sleep(_CHANGE_INTERVAL)

    def verify(self, url: str) -> None:
        """Compare the entries of the server with its responses. Raises Violation."""
        with Client(url) as client:
            file = exported(client)
            found = {entry.entry_id: str(entry.person_id) for entry in client.entries("g")}
        first, *entries, _ = [orjson.loads(line) for line in file.getvalue().splitlines()]
        if found not in (self.acknowledged, self.pending):
            raise Violation(f"the client expects {self.acknowledged} or {self.pending}; the service has {found}")
        self.counts["answers lost"] += self.pending is not None
        self.acknowledged, self.pending = found, None
        model = DIMS.index(first["dim"])
        vectors = np.stack([np.frombuffer(base64.b64decode(entry["vector"]), "<f4") for entry in entries])
        expected = reference_embedding(np.stack([self.pictures[id_] for id_ in found]), model, DIMS[model])
        if ((vectors * expected).sum(1) < _MIN_COSINE).any():
            raise Violation("the vector of an entry does not belong to its image")


def exported(client: Client) -> BytesIO:
    """The exported file of the gallery. Retries if the change of the model interrupts the export."""
    for _ in range(2):
        file = BytesIO()
        try:
            client.export_gallery("g", file.write)
        except ClientError:
            continue
        return file
    raise Violation("the export fails repeatedly")


def play(folder: Path, rounds: int, seed: int, progress: Console) -> dict[str, Any]:
    """Kill `rounds` servers on a folder. Returns the number of completed re-embeddings; raises Violation."""
    subject = Subject(folder, seed)
    server = subject.serve()
    try:
        with Client(server.url) as client:
            client.create_gallery("g", keep_crops=True)
            subject.arrive(client)
        server.stop()
        for _ in track(range(rounds), "killing", console=progress, disable=not progress.is_terminal):
            server = subject.serve()
            with Client(server.url) as client:
                state = client.re_embedding("g")
                subject.verify(server.url)
                if state.state == "needed":
                    client.re_embed("g")
                elif state.state == "current":
                    subject.counts["arrived"] += 1
                    subject.arrive(client)
                elif state.done < subject.done - (subject.entries - len(subject.acknowledged)):
                    raise Violation(f"{subject.done} of {subject.entries} entries were done, and now {state.done} are")
                else:
                    subject.counts["killed on the way"] += 1
                changes = threading.Thread(target=subject.change, args=(server.url,))
                changes.start()
                time.sleep(subject.random.uniform(0.0, MAX_DELAY))
                subject.entries = len(subject.acknowledged)
                subject.done = client.re_embedding("g").done if state.state != "current" else 0
            server.stop(signal.SIGKILL)
            changes.join()
    finally:
        if server.running:
            server.stop()
    counted = ("killed on the way", "arrived", "acknowledged changes", "answers lost")
    return {"rounds": rounds, "seed": seed, **{name: subject.counts[name] for name in counted}}


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 60,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Kill the server repeatedly while it re-embeds a gallery, and check the entries."""
    report(play, rounds, seed, as_json)


if __name__ == "__main__":
    typer.run(main)
