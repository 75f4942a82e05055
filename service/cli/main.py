"""`pan-serve`: run the service and keep its data. `pan-reid` (client/) is the command that uses a running service."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pan_reid.cli.common import read_secret
from service.cli import backup as backup_commands
from service.cli import check as check_commands
from service.cli import galleries as gallery_commands
from service.cli import keys as key_commands
from service.cli.common import handle_errors, out
from service.core.choices import Device, EngineChoice, LogLevel, PrecisionChoice

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Serve PAN: galleries of people, searched by picture."
)
app.add_typer(key_commands.app, name="key")
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)
app.command()(backup_commands.vacuum)
app.command()(check_commands.check)
app.command("re-embed")(gallery_commands.re_embed)


@app.command()
@handle_errors
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
    max_delay_ms: Annotated[float, typer.Option(min=0, help="How long an image waits for those being decoded.")] = 2.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images taken in at a time; over it, 429.")] = 512,
    max_images: Annotated[int, typer.Option(min=1, help="Images a request.")] = 256,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Size of a request.")] = 64,
    max_bodies_mib: Annotated[int, typer.Option(min=1, help="Size of all requests at a time; over it, 429.")] = 256,
    max_image_mib: Annotated[int, typer.Option(min=1, help="Size of an image.")] = 16,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Width x height of an image, or of all boxes in a frame.")
    ] = 40_000_000,
    max_decode_mib: Annotated[
        int, typer.Option(min=1, help="Memory for the images that are being decoded, together and each.")
    ] = 640,
    decode_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to decode one image.")] = 10.0,
    max_top_k: Annotated[int, typer.Option(min=1, help="Hits a search.")] = 5000,
    request_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up.")] = 30.0,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Open at a time; over it the one that is idle longest is closed.")
    ] = 1024,
    max_connections_per_address: Annotated[
        int, typer.Option(min=1, help="The same for one address; loopback and proxies have no bound of their own.")
    ] = 256,
    header_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the head of a request to arrive.")] = 10.0,
    idle_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until an idle connection is closed.")] = 15.0,
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            envvar="FORWARDED_ALLOW_IPS",
            metavar="ADDRESSES",
            help="Proxies whose X-Forwarded-For is believed: addresses and networks, with commas between. None if left "
            "out.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="While there is no API key, a name by which the service may be called, besides localhost and "
            "addresses; may be repeated.",
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(envvar="PAN_ADMIN_KEY_FILE", help="Holds a key for everything, besides those of `pan-serve key`."),
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Without any key, listen beyond this machine all the same.")
    ] = False,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
            metavar="URL",
            help="Send traces to this OpenTelemetry collector (OTLP over HTTP); needs the extra \\[otel].",
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(case_sensitive=False, help="The least that is logged.")] = "info",
) -> None:
    """Run the service until SIGTERM or Ctrl-C; requests in flight are finished first."""
    import asyncio

    from service.core.packages import check_binary_packages

    check_binary_packages()  # before anything imports them: a broken pair fails in ways that say nothing
    from bundle import ImageLimits
    from service.api.server import exit_on_signals, serve
    from service.core.settings import Settings
    from service.observability.logging import log_to_stderr

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
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        header_timeout=header_timeout,
        idle_timeout=idle_timeout,
        forwarded_allow_ips=tuple(forwarded_allow_ips.split(",")) if forwarded_allow_ips else (),
        allowed_hosts=tuple(allowed_host or ()),
        images=ImageLimits(
            max_bytes=max_image_mib * 2**20,
            max_pixels=max_pixels,
            max_decode_bytes=max_decode_mib * 2**20,
            max_seconds=decode_timeout,
        ),
        admin_key=None if admin_key_file is None else read_secret(admin_key_file),
        otlp_endpoint=otlp_endpoint or None,
        insecure_no_auth=insecure_no_auth,
    )
    log_to_stderr(log_level)
    exit_on_signals()
    asyncio.run(serve(settings, host, port, _announce))


def _announce(_: object, url: str) -> None:
    out.print(f"PAN Re-ID is ready at {url} (see {url}/docs)", soft_wrap=True)


@app.command()
@handle_errors
def openapi() -> None:
    """Print the OpenAPI document of the API, to make clients from; no service need run."""
    import orjson

    from service.api.app import openapi_document

    sys.stdout.write(orjson.dumps(openapi_document(), option=orjson.OPT_INDENT_2).decode() + "\n")


def main() -> None:
    """Entry point of `pan-serve`."""
    logging.captureWarnings(True)
    os.umask(0o077)  # what these commands write is of people, or opens a service
    app()
