"""Enrol a folder through a running service: batches, several in flight, every failure named."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pan_reid import ApiError, Client, ClientError, Crop
from service.cli.crops import CropFile, find_crops

Failure = tuple[Path, str]


def enroll_folder(
    client: Client, folder: Path, gallery: str, batch: int, in_flight: int, console: Console
) -> list[Failure]:
    """Enrol every crop under a folder; the files that failed, and why. Makes the gallery if it is missing.

    Raises NoCrops, or ClientError where the service does not answer at all.
    """
    crops = find_crops(folder)
    try:
        client.gallery(gallery)  # so that a key that may only enrol can do so
    except ApiError as error:
        if error.status != 404:
            raise
        client.create_gallery(gallery)
        console.print(f"made gallery {gallery}", highlight=False)
    batches = [crops[start : start + batch] for start in range(0, len(crops), batch)]
    failures: list[Failure] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(in_flight) as pool:
        task = progress.add_task("enrolling", total=len(crops))
        futures = {pool.submit(_enrol_batch, client, gallery, files): files for files in batches}
        try:
            for future in as_completed(futures):
                failures += future.result()
                progress.advance(task, len(futures[future]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    console.print(f"enrolled {len(crops) - len(failures)} of {len(crops)} crops in {gallery}", highlight=False)
    return sorted(failures)


def _enrol_batch(client: Client, gallery: str, files: Sequence[CropFile]) -> list[Failure]:
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
        enrolled = client.enrol(gallery, crops)
    except ClientError as error:
        return failures + [(file.path, str(error)) for file in readable]
    for result in enrolled.results:
        if result.error is not None:
            failures.append((readable[result.index].path, result.error.detail))
    return failures
