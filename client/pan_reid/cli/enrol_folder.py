"""Enrol crops from files in concurrent batches, and collect the files that fail."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pan_reid import ApiError, Client, ClientError, Crop
from pan_reid.cli.folder import CropFile

Failure = tuple[Path, str]


def enrol_crops(
    client: Client,
    crops: Sequence[CropFile],
    gallery: str,
    settings: Mapping[str, Any],
    batch: int,
    in_flight: int,
    console: Console,
    *,
    again: bool = False,
) -> list[Failure]:
    """Enrol crops. Returns the failed files with reasons. Creates a missing gallery with `settings`.

    The service skips a batch that was enrolled before, unless `again` is true. Raises ClientError if the service is
    unreachable.
    """
    try:
        client.gallery(gallery)  # creation needs scope admin, so first check whether the gallery exists
    except ApiError as error:
        if error.status != 404:
            raise
        client.create_gallery(gallery, **settings)
        console.print(f"created gallery {gallery}", highlight=False)
    else:
        if settings:
            console.print(f"gallery {gallery} exists: {', '.join(settings)} are not changed", highlight=False)
    batches = [crops[start : start + batch] for start in range(0, len(crops), batch)]
    failures: list[Failure] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(in_flight) as pool:
        task = progress.add_task("enrolling", total=len(crops))
        futures = {pool.submit(_enrol_batch, client, gallery, files, again): files for files in batches}
        try:
            for future in as_completed(futures):
                failures += future.result()
                progress.advance(task, len(futures[future]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    console.print(f"enrolled {len(crops) - len(failures)} of {len(crops)} crops in {gallery}", highlight=False)
    return sorted(failures)


def _enrol_batch(client: Client, gallery: str, files: Sequence[CropFile], again: bool) -> list[Failure]:
    failures: list[Failure] = []
    readable: list[CropFile] = []
    crops: list[Crop] = []
    for file in files:
        try:
            crops.append(Crop(file.path.read_bytes(), file.info))
            readable.append(file)
        except OSError as error:
            failures.append((file.path, str(error)))
    if not crops:
        return failures
    try:
        enrolled = client.enrol(gallery, crops, key=uuid.uuid4().hex if again else _content_key(crops))
    except ClientError as error:
        return failures + [(file.path, str(error)) for file in readable]
    for result in enrolled.results:
        if result.error is not None:
            failures.append((readable[result.index].path, result.error.detail))
    return failures


def _content_key(crops: Sequence[Crop]) -> str:
    """An idempotency key that is the same for the same pictures with the same metadata."""
    digest = hashlib.sha256()
    for crop in crops:
        digest.update(hashlib.sha256(crop.image).digest())
        digest.update(hashlib.sha256(crop.info.model_dump_json().encode()).digest())
    return digest.hexdigest()
