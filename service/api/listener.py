"""A listening socket with limits on its connections, in total and for each address.

At a limit, the connection that has waited longest for its client is closed. A new connection is refused only if a
response is due on all others. asyncio's own listener would log thousands of tracebacks a second without free file
descriptors.
"""

import asyncio
import errno
import ipaddress
import logging
import resource
import socket
from collections.abc import Callable, Sequence

from service.api.connection import Connection
from service.api.problems import problem
from service.core.errors import StartupError
from service.observability.logging import Throttled
from service.observability.metrics import Metrics

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BACKLOG = 2048  # connections that the kernel queues until they are accepted
_MAX_ACCEPTS = 64  # before the event loop serves other connections
_PAUSE = 1.0  # seconds without accepting while there are no free file descriptors
_RESERVED = 128  # file descriptors for the database, images and logs
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse addresses and networks. Raises StartupError."""
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in texts)
    except ValueError as error:
        raise StartupError(
            f"--forwarded-allow-ips: {error}; give addresses (10.0.0.2) or networks (10.0.0.0/24)"
        ) from None


def raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files for `wanted` connections. Returns the number of connections that it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(soft - _RESERVED, soft // 2)
    log.warning(
        "the limit of open files allows fewer connections than --max-connections; raise it with `ulimit -n`",
        extra={"wanted": wanted, "possible": possible, "open_files": soft},
    )
    return possible


class Connections:
    """The open connections. Use it on one event loop."""

    def __init__(
        self, limit: int, limit_per_address: int, max_unsent: int, exempt: Sequence[Network], metrics: Metrics
    ) -> None:
        """`max_unsent` is the limit on bytes of responses that clients have not read.

        Loopback and the networks in `exempt` have no limit per address: a proxy connects for many clients.
        """
        self._limit = limit
        self._max_unsent = max_unsent
        self._limit_per_address = limit_per_address
        self._exempt = exempt
        self._metrics = metrics
        self._open: set[Connection] = set()

    def admit(self, peer: str) -> bool:
        """Whether another connection of this peer is accepted. At a limit, closes one that waits for its client."""
        rivals: list[Connection] | set[Connection] = self._open
        if len(rivals) < self._limit:
            if len(rivals) < self._limit_per_address or self._is_exempt(peer):
                return True
            rivals = [connection for connection in self._open if connection.peer == peer]
            if len(rivals) < self._limit_per_address:
                return True
        longest = min(rivals, key=lambda connection: connection.waiting_since)
        if longest.waiting_since == float("inf"):
            self.count_refusal("too-many-connections")
            return False
        self._evict(longest)
        return True

    def check(self, now: float) -> None:
        """Close connections whose clients are late. Above the limit on unread bytes, close those that read last."""
        connected = [connection for connection in self._open if connection.transport is not None]
        for connection in connected:
            connection.check(now)
        unsent = sum(connection.unsent for connection in connected)
        for connection in sorted(connected, key=lambda connection: connection.read_at):
            if unsent <= self._max_unsent:
                break
            if connection.unsent:
                unsent -= connection.unsent
                self._evict(connection)
        self._metrics.unsent_bytes.set(unsent)

    def add(self, connection: Connection) -> None:
        """A connection was accepted."""
        self._open.add(connection)
        self._metrics.connections.set(len(self._open))

    def remove(self, connection: Connection) -> None:
        """A connection was closed."""
        self._open.discard(connection)
        self._metrics.connections.set(len(self._open))

    def count_refusal(self, code: str) -> None:
        """A connection or request was refused before it reached the application."""
        self._metrics.connections_refused.labels(code).inc()

    def _evict(self, connection: Connection) -> None:
        connection.evict()
        self.remove(connection)
        self._metrics.connections_evicted.inc()

    def _is_exempt(self, peer: str) -> bool:
        address = ipaddress.ip_network(peer).network_address
        return address.is_loopback or any(address in network for network in self._exempt)


def peer_of(address: str) -> str:
    """The key of a client: an IPv4 address, or the /64 network of an IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        if not ip.is_loopback:
            return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class Listener:
    """Accepts connections of a bound socket. Has the methods of `asyncio.Server` that uvicorn calls."""

    def __init__(self, bound: socket.socket, connections: Connections, create: Callable[[str], Connection]) -> None:
        """`create` makes the connection of a peer."""
        self._socket = bound
        self._connections = connections
        self._create = create
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._warn = Throttled(log, logging.WARNING)
        bound.setblocking(False)
        bound.listen(_BACKLOG)
        self._loop.add_reader(bound, self._accept)

    def close(self) -> None:
        """Stop accepting. Open connections stay."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Return at once: nothing remains after `close`."""

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    raise
                self._warn("no connection can be accepted for now", reason=str(error))
                self._loop.remove_reader(self._socket)
                self._resume = self._loop.call_later(_PAUSE, self._loop.add_reader, self._socket, self._accept)
                return
            accepted.setblocking(False)
            peer = peer_of(address[0])
            if not self._connections.admit(peer):
                self._warn("a connection was refused: too many are open, and all await a response", peer=peer)
                _refuse(accepted)
                continue
            connection = self._create(peer)
            self._connections.add(connection)
            task = self._loop.create_task(self._start(accepted, connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:  # the client has disconnected already
            accepted.close()
            self._connections.remove(connection)


def _refuse(accepted: socket.socket) -> None:
    refusal = problem(503, "too-many-connections", "too many connections are open; try again in 1 s", "none")
    fields = [*refusal.raw_headers, (b"retry-after", b"1"), (b"connection", b"close")]
    head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    with accepted:
        try:
            accepted.send(b"HTTP/1.1 503 Service Unavailable\r\n" + head + b"\r\n" + bytes(refusal.body))
            accepted.shutdown(socket.SHUT_WR)
            accepted.recv(2**16)  # closing a socket with unread input could discard the response
        except OSError:
            pass
