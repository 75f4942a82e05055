"""`pan-serve`: run the service, and use one that runs."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from bundle import ImageLimits
from service import backup_commands, key_commands
from service.client import Client
from service.enroll import enroll_folder
from service.logs import log_to_stderr
from service.settings import Device, EngineChoice, PrecisionChoice, Settings
from service.terminal import complain, err, out, read_secret, told
from service.wheels import installed_wheels

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Serve PAN: galleries of people, searched by picture."
)
app.add_typer(key_commands.app, name="key")
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)

Url = Annotated[str, typer.Option(help="Of a running service.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="Holds the API key; PAN_API_KEY is read if left out.")
]
GalleryOption = Annotated[str, typer.Option("--gallery", help="Name of the gallery.")]


@app.command()
@told
def run(
    bundle: Annotated[Path, typer.Option(help="The folder that pan-export wrote.")],
    data: Annotated[Path, typer.Option(help="The folder that keeps the galleries; made if missing.")],
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one and says which.")] = 8000,
    engine: Annotated[
        EngineChoice, typer.Option(help="The runtime. What is asked for is what runs, or the service does not start.")
    ] = "auto",
    device: Annotated[Device, typer.Option(help="auto: a GPU that an installed runtime can use, or else the CPU.")] = (
        "auto"
    ),
    precision: Annotated[
        PrecisionChoice, typer.Option(help="auto: float32 on the CPU; float16, then float32, on a GPU.")
    ] = "auto",
    allow_unverified: Annotated[
        bool,
        typer.Option(
            "--allow-unverified",
            help="Run a TensorRT engine that never ran beside PyTorch, once it agrees with the float32 file here.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="Of the engine; 0 is one a core.")] = 0,
    max_batch: Annotated[int, typer.Option(min=1, help="Images an engine call.")] = 32,
    max_delay_ms: Annotated[float, typer.Option(min=0, help="How long an image waits for company.")] = 2.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images taken in at a time; over it, 429.")] = 512,
    max_images: Annotated[int, typer.Option(min=1, help="Images a request.")] = 256,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Size of a request.")] = 64,
    max_bodies_mib: Annotated[int, typer.Option(min=1, help="Size of all requests at a time; over it, 429.")] = 256,
    max_image_mib: Annotated[int, typer.Option(min=1, help="Size of an image.")] = 16,
    max_pixels: Annotated[int, typer.Option(min=1, help="Width x height of an image.")] = 40_000_000,
    max_top_k: Annotated[int, typer.Option(min=1, help="Hits a search.")] = 5000,
    request_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up.")] = 30.0,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(envvar="PAN_ADMIN_KEY_FILE", help="Holds a key for everything, besides those of `pan-serve key`."),
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Without any key, listen beyond this machine all the same.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the service until SIGTERM or Ctrl-C; requests in flight are finished first."""
    installed_wheels()  # before anything imports them: a broken pair fails in ways that say nothing
    from service.server import leave_on_signals, serve

    settings = Settings(
        bundle=bundle,
        data=data,
        engine=engine,
        device=device,
        precision=precision,
        allow_unverified=allow_unverified,
        threads=threads,
        max_batch=max_batch,
        max_delay=max_delay_ms / 1000,
        max_queue=max_queue,
        max_images=max_images,
        max_body=max_body_mib * 2**20,
        max_bodies=max_bodies_mib * 2**20,
        max_top_k=max_top_k,
        request_timeout=request_timeout,
        images=ImageLimits(max_bytes=max_image_mib * 2**20, max_pixels=max_pixels),
        admin_key=None if admin_key_file is None else read_secret(admin_key_file),
        insecure_no_auth=insecure_no_auth,
    )
    log_to_stderr(log_level)
    leave_on_signals()
    asyncio.run(serve(settings, host, port, _announce))


def _announce(_: object, url: str) -> None:
    out.print(f"PAN Re-ID is ready at {url} (see {url}/docs)", soft_wrap=True)


@app.command()
@told
def enroll(
    folder: Annotated[Path, typer.Argument(help="Crops named as in Market-1501, or person/camera_*.jpg.")],
    gallery: GalleryOption,
    url: Url = "http://127.0.0.1:8000",
    batch: Annotated[int, typer.Option(min=1, help="Crops a request.")] = 32,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 4,
    key_file: KeyFile = None,
) -> None:
    """Enrol every crop under a folder into a gallery, which is made if missing."""
    with _client(url, key_file) as client:
        failures = enroll_folder(client, folder, gallery, batch, in_flight, err)
    for path, reason in failures:
        complain(f"{path}: {reason}")
    if failures:
        raise typer.Exit(1)


@app.command()
@told
def search(
    image: Annotated[list[Path], typer.Argument(help="A crop; or several of one person, which are fused.")],
    gallery: GalleryOption,
    url: Url = "http://127.0.0.1:8000",
    top_k: Annotated[int, typer.Option(min=1)] = 10,
    group_by_person: Annotated[bool, typer.Option("--group-by-person", help="Answer persons, not crops.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")] = False,
    key_file: KeyFile = None,
) -> None:
    """Where else is this person?"""
    options: dict[str, Any] = {"top_k": top_k, **({"group_by": "person"} if group_by_person else {})}
    try:
        images = [path.read_bytes() for path in image]
    except OSError as error:
        raise typer.BadParameter(str(error)) from None
    with _client(url, key_file) as client:
        answer = client.search(gallery, *images, **options)
    if as_json:
        sys.stdout.write(answer.model_dump_json(exclude_none=True) + "\n")
        return
    table = Table("score", "person", "camera", "entry", "file")
    for person in answer.persons or []:
        nearest = person.hits[0]
        score = f"{person.best:.4f} (mean {person.mean:.4f} of {person.entries})"
        table.add_row(score, person.person_id, nearest.camera_id, str(nearest.entry_id), nearest.attributes.get("file"))
    for hit in answer.hits or []:
        table.add_row(f"{hit.score:.4f}", hit.person_id, hit.camera_id, str(hit.entry_id), hit.attributes.get("file"))
    out.print(table)


@app.command()
@told
def openapi() -> None:
    """Print the OpenAPI document of the API, to make clients from; no service need run."""
    from service.app import openapi_document

    sys.stdout.write(orjson.dumps(openapi_document(), option=orjson.OPT_INDENT_2).decode() + "\n")


def _client(url: str, key_file: Path | None) -> Client:
    return Client(url, api_key=None if key_file is None else read_secret(key_file))


def main() -> None:
    """Entry point of `pan-serve`."""
    logging.captureWarnings(True)
    app()
