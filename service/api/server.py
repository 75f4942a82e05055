"""The HTTP server: opens the service and listens. On SIGTERM or Ctrl-C it finishes the requests in progress."""

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable

import uvicorn

from service.api.app import create_app
from service.api.connection import Connection, ConnectionLimits
from service.api.listener import Connections, Listener, parse_networks, raise_file_limit
from service.container import Container, open_service
from service.core.errors import StartupError
from service.core.settings import Settings

log = logging.getLogger(__name__)

_TICKS_PER_CHECK = 5  # a tick of uvicorn is a tenth of a second


class Server(uvicorn.Server):
    """uvicorn's server with limited connections. It reports its URL once it listens."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        limits: ConnectionLimits,
        listening: Callable[["Server", str], None],
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._limits = limits
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        for bound in sockets or []:
            self.servers = [Listener(bound, self._connections, self._connection)]  # type: ignore[list-item]
            self.started = True
            host, port = bound.getsockname()[:2]
            self._listening(self, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        """Close the connections whose clients are late."""
        if counter % _TICKS_PER_CHECK == 0:
            self._connections.check(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _connection(self, peer: str) -> Connection:
        open_ones = self._connections
        return Connection(self.config, self.server_state, self._limits, peer, open_ones.count_refusal, open_ones.remove)


async def serve(settings: Settings, host: str, port: int, listening: Callable[[Server, str], None]) -> None:
    """Serve until the server is stopped. `listening` is called with the server and its URL. Port 0 is any free port.

    Raises StartupError, BundleError or EngineFailed when the service cannot start.
    """
    proxies = parse_networks(settings.forwarded_allow_ips)
    gc.disable()  # loading the galleries creates millions of objects that are no garbage
    try:
        with _bind(host, port) as bound:
            async with open_service(settings) as service:
                _require_auth_or_loopback(service, bound.getsockname()[0])
                config = uvicorn.Config(
                    create_app(service),
                    http=Connection,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=bool(proxies),
                    forwarded_allow_ips=[str(network) for network in proxies],
                    timeout_graceful_shutdown=int(settings.request_timeout) + 1,
                )
                # Loaded objects stay; scanning them would stop all requests for 40 ms at a time.
                gc.collect()
                gc.freeze()
                gc.enable()
                connections = Connections(
                    raise_file_limit(settings.max_connections),
                    settings.max_connections_per_address,
                    settings.max_bodies,
                    proxies,
                    service.metrics,
                )
                limits = ConnectionLimits(
                    head_timeout=settings.header_timeout,
                    idle_timeout=settings.idle_timeout,
                    drain_timeout=settings.request_timeout,
                    write_timeout=settings.request_timeout,
                )
                await Server(config, connections, limits, listening).serve(sockets=[bound])
    finally:
        gc.enable()


def _require_auth_or_loopback(service: Container, address: str) -> None:
    if service.keys.required():
        return
    if not ipaddress.ip_address(address).is_loopback and not service.settings.insecure_no_auth:
        raise StartupError(
            f"there is no API key, so every client that reaches {address} could read and erase all galleries; create a "
            "key with `pan-serve key create`, listen on 127.0.0.1, or give --insecure-no-auth"
        )
    log.warning(
        "there is no API key: every client that reaches this address has full access; create a key with "
        "`pan-serve key create`",
        extra={"address": address},
    )


def exit_on_signals() -> None:
    """Make SIGTERM and Ctrl-C end the process with status 0: a requested stop is no failure.

    While the server runs, uvicorn handles the signals, and raises them again when it has shut down.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)


def _exit(*_: object) -> None:
    raise SystemExit(0)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Nagle's algorithm would delay responses by 40 ms; asyncio disables it only if the protocol is given.
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"{host} is not an address of this machine ({error}); give another --host") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise StartupError(f"cannot listen on {host} port {port} ({error}); give another --host or --port") from error
    return bound
