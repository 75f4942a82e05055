"""The HTTP server: opens the service, listens, and on SIGTERM or Ctrl-C finishes what is in flight."""

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
from service.api.listener import Connections, Listener, connections_possible, networks
from service.container import Container, open_service
from service.core.errors import StartupError
from service.core.settings import Settings

log = logging.getLogger(__name__)


_TICKS_A_CHECK = 5  # of a tenth of a second


class Server(uvicorn.Server):
    """uvicorn's server over connections that are bounded. It also tells where it listens once it does."""

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
        """Begin to accept connections."""
        for bound in sockets or []:
            self.servers = [Listener(bound, self._connections, self._connection)]  # type: ignore[list-item]
            self.started = True
            host, port = bound.getsockname()[:2]
            self._listening(self, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        """Also closes the connections whose clients are late."""
        if counter % _TICKS_A_CHECK == 0:
            self._connections.check(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _connection(self, peer: str) -> Connection:
        one = self._connections
        return Connection(self.config, self.server_state, self._limits, peer, one.count_refusal, one.remove)


async def serve(settings: Settings, host: str, port: int, listening: Callable[[Server, str], None]) -> None:
    """Serve until told to stop; `listening` gets the server and its URL. Port 0 takes a free one.

    Raises StartupError, BundleError or EngineFailed when the service cannot start.
    """
    proxies = networks(settings.forwarded_allow_ips)
    gc.disable()  # what is made while the galleries are read is no garbage, and there are millions of it
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
                # What is loaded by now stays; looking through it would stop every request for 40 ms at a time.
                gc.collect()
                gc.freeze()
                gc.enable()
                connections = Connections(
                    connections_possible(settings.max_connections),
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
            f"there is no API key, so whoever reaches {address} could read and erase every gallery; make a key with "
            "`pan-serve key create`, listen at 127.0.0.1, or say --insecure-no-auth"
        )
    log.warning(
        "there is no API key: whoever reaches this address may do everything; `pan-serve key create` makes the first",
        extra={"address": address},
    )


def exit_on_signals() -> None:
    """Make SIGTERM and Ctrl-C end the process with status 0: a stop that was asked for is no failure.

    While the server runs uvicorn handles them, and raises the signal again when it has shut down.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(*_: object) -> None:
    raise SystemExit(0)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Nagle's algorithm would hold answers back for 40 ms; asyncio turns it off only where the protocol is named.
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"{host} is no address of this machine ({error}); give another --host") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise StartupError(f"cannot listen at {host} port {port} ({error}); give another --host or --port") from error
    return bound
