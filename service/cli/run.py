"""`pan-serve run`: start the service. The options of this function are the only list of the service's settings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pan_reid.cli.common import read_secret
from service.cli.common import handle_errors, out
from service.core.choices import Device, EngineChoice, LogLevel, PrecisionChoice


@handle_errors
def run(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Option(help="Folder of the model, as pan-export wrote it.")],
    data: Annotated[Path, typer.Option(help="Folder of the galleries. It is created if it is missing.")],
    host: Annotated[str, typer.Option(help="Address to listen on. The default accepts only this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 selects a free port and prints it.")] = 8000,
    engine: Annotated[
        EngineChoice, typer.Option(help="The runtime. The service does not start if it cannot run this one.")
    ] = "auto",
    device: Annotated[
        Device, typer.Option(help="auto: a GPU that an installed runtime can use, otherwise the CPU.")
    ] = "auto",
    precision: Annotated[
        PrecisionChoice, typer.Option(help="auto: float32 on the CPU; float16, then float32, on a GPU.")
    ] = "auto",
    allow_unverified: Annotated[
        bool,
        typer.Option(
            "--allow-unverified",
            help="Run a TensorRT engine that export could not compare with PyTorch, if it agrees here with the "
            "bundle's float32 file.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0 is one per core.")] = 0,
    max_batch: Annotated[int, typer.Option(min=1, help="Images per engine call.")] = 32,
    max_delay_ms: Annotated[
        float, typer.Option(min=0, help="Longest time in milliseconds that an image waits for its batch to fill.")
    ] = 2.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images in progress at a time; above it, 429.")] = 512,
    max_images: Annotated[int, typer.Option(min=1, help="Images per request.")] = 256,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Size of a request body.")] = 64,
    max_bodies_mib: Annotated[
        int, typer.Option(min=1, help="Size of all request bodies in progress; above it, 429.")
    ] = 256,
    max_image_mib: Annotated[int, typer.Option(min=1, help="Size of an encoded image.")] = 16,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Width x height of an image, or of all boxes in a frame.")
    ] = 40_000_000,
    max_decode_mib: Annotated[
        int, typer.Option(min=1, help="Memory for decoding images, for all of them together and for each.")
    ] = 640,
    decode_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to decode one image.")] = 10.0,
    max_top_k: Annotated[int, typer.Option(min=1, help="Hits per search.")] = 5000,
    request_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is cancelled.")] = 30.0,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Open connections; above it, the one that is idle longest is closed.")
    ] = 1024,
    max_connections_per_address: Annotated[
        int, typer.Option(min=1, help="Open connections of one address; loopback and trusted proxies are exempt.")
    ] = 256,
    header_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the head of a request to arrive.")] = 10.0,
    idle_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until an idle connection is closed.")] = 15.0,
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            envvar=["PAN_FORWARDED_ALLOW_IPS", "FORWARDED_ALLOW_IPS"],
            metavar="ADDRESSES",
            help="Trusted proxies, whose X-Forwarded-For is used: addresses and networks, separated by commas.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A host name that requests may use while there is no API key, besides localhost and addresses. May be "
            "repeated; the variable separates names by spaces.",
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(help="File of an API key with every scope, in addition to the keys of `pan-serve key`."),
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Listen beyond this machine although there is no API key.")
    ] = False,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar=["PAN_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
            metavar="URL",
            help="Send traces to this OpenTelemetry collector (OTLP over HTTP); needs the extra \\[otel].",
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(case_sensitive=False, help="Lowest level that is logged.")] = "info",
) -> None:
    """Run the service until SIGTERM or Ctrl-C. It completes the requests in progress before it stops.

    Each option is also an environment variable: --max-batch is PAN_MAX_BATCH. `pan-serve config` shows the values.
    """
    import asyncio
    import logging

    from service.core.packages import check_binary_packages

    check_binary_packages()  # before anything imports them: the errors of a broken pair are misleading
    from bundle import ImageLimits
    from service.api.server import exit_on_signals, serve
    from service.cli.environment import unknown_variables
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
    for message in unknown_variables(ctx.command.params):
        logging.getLogger(__name__).warning(message)
    exit_on_signals()
    asyncio.run(serve(settings, host, port, _announce))


def _announce(_: Any, url: str) -> None:
    out.print(f"PAN Re-ID is ready at {url} (see {url}/docs)", soft_wrap=True)
