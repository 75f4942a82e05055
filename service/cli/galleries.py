"""`pan-serve re-embed`: re-embed a gallery with the loaded model, and show the progress."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pan_reid.cli.common import KeyFile, Url, connect
from service.cli.common import err, handle_errors, out, print_error

if TYPE_CHECKING:
    from pan_reid import Client
    from pan_reid.schemas import ReEmbedding

_POLL_INTERVAL = 1.0  # seconds
_IDLE_FACTOR = 20  # pause between polls, in durations of the last poll: counting entries costs time


@handle_errors
def re_embed(
    gallery: Annotated[str, typer.Argument(help="Name of a gallery of another model.")],
    drop_without_crop: Annotated[
        bool,
        typer.Option("--drop-without-crop", help="At the end, erase the entries without a stored image."),
    ] = False,
    url: Url = "http://127.0.0.1:8000",
    key_file: KeyFile = None,
) -> None:
    """Embed the stored images of a gallery with the loaded model, in the background of a running service.

    The service continues if this command ends. Run the command again to show the progress.
    """
    with connect(url, key_file) as client:
        found = client.re_embed(gallery, drop_without_crop=drop_without_crop)
        try:
            found = _follow_progress(client, found)
        except KeyboardInterrupt:
            err.print(f"the service continues; `pan-serve re-embed {gallery}` shows the progress", highlight=False)
            raise typer.Exit(130) from None
    if found.state != "current":
        print_error(f"pan-serve: gallery {gallery} was not re-embedded: {found.problem or 'it was cancelled'}")
        raise typer.Exit(1)
    out.print(
        f"gallery {gallery} has {found.entries:,} entries of the loaded model, {found.fingerprint[:12]}",
        highlight=False,
        soft_wrap=True,
    )
    if found.erased is not None:
        left = "overwritten" if found.erased.overwritten else "the log has copies until the next erasure or restart"
        out.print(f"erased {found.erased.entries:,} entries without an image ({left})", highlight=False, soft_wrap=True)


def _follow_progress(client: "Client", found: "ReEmbedding") -> "ReEmbedding":
    """Show the progress until the re-embedding ends; its last state."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("re-embedding", total=found.entries)
        told_of, took = None, 0.0
        while found.state == "running":
            progress.update(task, completed=found.done, total=found.entries - found.without_crop)
            if found.problem not in (None, told_of):
                told_of = found.problem
                progress.console.print(f"waiting: {found.problem}", markup=False, highlight=False)
            time.sleep(max(_POLL_INTERVAL, _IDLE_FACTOR * took))
            asked = time.monotonic()
            found = client.re_embedding(found.gallery)
            took = time.monotonic() - asked
        if found.state == "current":
            progress.update(task, completed=found.entries, total=found.entries)
    return found
