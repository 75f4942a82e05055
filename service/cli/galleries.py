"""`pan-serve re-embed`: bring a gallery to the loaded model, and watch it go."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pan_reid.cli.common import KeyFile, Url, connect
from service.cli.common import err, handle_errors, out, print_error

if TYPE_CHECKING:
    from pan_reid import Client
    from pan_reid.schemas import ReEmbedding

_LOOK_EVERY = 1.0  # seconds
_IDLE = 20  # times as long as it takes the service to count


@handle_errors
def re_embed(
    gallery: Annotated[str, typer.Argument(help="Name of a gallery that was enrolled with another model.")],
    drop_without_crop: Annotated[
        bool,
        typer.Option("--drop-without-crop", help="Erase at the end the entries that keep no picture."),
    ] = False,
    url: Url = "http://127.0.0.1:8000",
    key_file: KeyFile = None,
) -> None:
    """Embed the kept crops of a gallery with the loaded model, beside its other work.

    The service does it, also when this command ends: run it again to watch.
    """
    with connect(url, key_file) as client:
        found = client.re_embed(gallery, drop_without_crop=drop_without_crop)
        try:
            found = _follow_progress(client, found)
        except KeyboardInterrupt:
            err.print(f"the service goes on; `pan-serve re-embed {gallery}` shows how far it is", highlight=False)
            raise typer.Exit(130) from None
    if found.state != "current":
        print_error(f"pan-serve: gallery {gallery} is not done: {found.problem or 'it was given up'}")
        raise typer.Exit(1)
    out.print(
        f"gallery {gallery} is of the loaded model, {found.fingerprint[:12]}; {found.entries:,} entries",
        highlight=False,
        soft_wrap=True,
    )
    if found.erased is not None:
        left = "overwritten" if found.erased.overwritten else "copies stay in the log until the next erasure or a stop"
        out.print(f"{found.erased.entries:,} without a picture were erased ({left})", highlight=False, soft_wrap=True)


def _follow_progress(client: "Client", found: "ReEmbedding") -> "ReEmbedding":
    """What it has become when it is no longer under way."""
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
            time.sleep(max(_LOOK_EVERY, _IDLE * took))
            asked = time.monotonic()
            found = client.re_embedding(found.gallery)
            took = time.monotonic() - asked
        if found.state == "current":
            progress.update(task, completed=found.entries, total=found.entries)
    return found
