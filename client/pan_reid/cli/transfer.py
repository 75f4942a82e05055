"""`pan-reid export` and `import`: a gallery as one file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pan_reid.cli.common import LOCAL, GalleryName, Json, KeyFile, Url, connect, handle_errors, print_json, print_line


@handle_errors
def export(
    gallery: GalleryName,
    file: Annotated[Path, typer.Argument(help="File to write. It is written completely or not at all.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    url: Url = LOCAL,
    key_file: KeyFile = None,
) -> None:
    """Write a gallery with its vectors to a file, which another service with the same model can import."""
    if file.exists() and not force:
        raise typer.BadParameter(f"{file} exists; give another name, or --force to replace it")
    with connect(url, key_file) as client, _replacing(file) as stream:
        client.export_gallery(gallery, stream.write)
    print_line(f"wrote {file}")


@handle_errors
def import_(
    gallery: Annotated[str, typer.Argument(help="Name of the new gallery.")],
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="A file that `pan-reid export` wrote.")],
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Create a gallery from an exported file."""
    with connect(url, key_file) as client:
        made = client.import_gallery(gallery, file)
    if as_json:
        print_json(made)
    else:
        print_line(f"created gallery {gallery} with {made.entries:,} entries")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces `path` when it is complete and on disk. Raises PanReidError."""
    from pan_reid.errors import PanReidError

    try:
        # the file has mode 0600
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as file:
            partial = Path(file.name)
            try:
                yield file  # type: ignore[misc]
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise PanReidError(
            f"{path} was not written ({error}); check the disk, and the owner and mode of the folder"
        ) from error
