"""Rank-1 and mAP through REST: every query is sent to the service, and the rankings are scored by the official rules.

    python -m benchmarks.service.rest_quality DATA --gallery NAME [--checkpoint RUN] [--url URL] [--json]

The gallery must have the gallery crops of DATA (`pan-reid enrol DATA/bounding_box_test --gallery NAME`). With a
checkpoint, PyTorch computes the same figures offline, and a difference of more than 0.1 points is an error.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from bundle import Evaluation, PanError
from pan_reid import Client, PanReidError
from training.checkpoint import load_checkpoint
from training.data import Crop, ReidData, cameras, persons, read_data
from training.embed import evaluate_on, torch_embedder
from training.errors import DataError
from training.evaluation import Floats, Labels, evaluate_similarity

TOLERANCE = 0.1  # points


def search_all(client: Client, gallery: str, data: ReidData, console: Console) -> Floats:
    """Cosines of queries and gallery crops from the service, (Q, G); -2 if a crop is not among the hits."""
    column = {crop.path.name: index for index, crop in enumerate(data.gallery)}
    enrolled = {
        entry.entry_id: column.get(Path(str(entry.attributes["file"])).name) for entry in client.entries(gallery)
    }
    if None in enrolled.values() or len(enrolled) == 0:
        raise DataError(
            f"gallery {gallery} does not hold the gallery crops of {data.name}; enrol them and nothing else"
        )

    def row(crop: Crop) -> Floats:
        scores = np.full(len(data.gallery), -2.0, np.float32)
        answer = client.search(gallery, crop.path.read_bytes(), top_k=len(enrolled))
        for hit in answer.hits or ():
            scores[enrolled[hit.entry_id]] = hit.score
        return scores

    with ThreadPoolExecutor(4) as pool:
        rows = pool.map(row, data.query)
        return np.stack(
            list(track(rows, "searching", len(data.query), console=console, disable=not console.is_terminal))
        )


def evaluate_rest(client: Client, gallery: str, data: ReidData, console: Console) -> tuple[Evaluation, Floats]:
    """Search by every query. Returns the evaluation of the rankings, and the (Q, G) scores."""
    scores = search_all(client, gallery, data, console)
    query, held = (Labels(persons(crops), cameras(crops)) for crops in (data.query, data.gallery))
    return evaluate_similarity(lambda rows: scores[rows], query, held, f"{data.name} through REST"), scores


def agree(rest: Evaluation, offline: Evaluation) -> bool:
    """True if rank-1 and mAP each differ by at most a tenth of a point."""
    return abs(rest.mAP - offline.mAP) <= TOLERANCE and abs(rest.cmc[1] - offline.cmc[1]) <= TOLERANCE


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. The exit status is 1 if REST and offline disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        data = read_data(options.data)
        with Client(options.url) as client:
            found = {"rest": evaluate_rest(client, options.gallery, data, console)[0]}
        if options.checkpoint:
            network, card = load_checkpoint(options.checkpoint)
            found["offline"] = evaluate_on(torch_embedder(network, card.input), data, card.input)
    except (PanError, PanReidError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    if options.json:
        print(json.dumps({name: result.model_dump(mode="json") for name, result in found.items()}))
    else:
        for name, result in found.items():
            figures = f"rank-1 {result.cmc[1]:6.2f}  mAP {result.mAP:6.2f}"
            print(f"{name:8} {figures}  ({result.queries} queries, {result.data})")
    return 0 if "offline" not in found or agree(found["rest"], found["offline"]) else 1


if __name__ == "__main__":
    sys.exit(main())
