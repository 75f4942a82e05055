"""Who may connect: a listening socket whose connections are bounded in total and for each address.

Over a bound the connection that has waited longest for its client makes room. Only where all are being answered is a
new one refused. asyncio's own accepting would write thousands of tracebacks a second once file descriptors run out.
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

_BACKLOG = 2048  # connections that the kernel keeps until they are accepted
_AT_ONCE = 64  # accepted in one go; then the event loop serves those that are there
_PAUSE = 1.0  # seconds without accepting when there are no file descriptors left
_BESIDE = 128  # file descriptors kept for the database, pictures and logs
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks as networks. Raises StartupError."""
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in texts)
    except ValueError as error:
        raise StartupError(f"{error}; give addresses (10.0.0.2) or networks (10.0.0.0/24)") from None


def connections_possible(wanted: int) -> int:
    """Raise the process's limit of open files as far as needed and allowed; how many connections fit under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(soft - _BESIDE, soft // 2)
    log.warning(
        "the limit of open files allows fewer connections than --max-connections; raise it with `ulimit -n`",
        extra={"wanted": wanted, "possible": possible, "open_files": soft},
    )
    return possible


class Connections:
    """The connections that are open. Used from one event loop."""

    def __init__(
        self, most: int, most_an_address: int, most_unsent: int, exempt: Sequence[Network], metrics: Metrics
    ) -> None:
        """`most_unsent` is bytes of answers that wait for their clients.

        Loopback and the networks of `exempt` have no bound of their own: proxies speak for many.
        """
        self._most = most
        self._most_unsent = most_unsent
        self._most_an_address = most_an_address
        self._exempt = exempt
        self._metrics = metrics
        self._open: set[Connection] = set()

    def admit(self, peer: str) -> bool:
        """Whether there is room for another connection of this peer; makes room where a connection only waits."""
        rivals: list[Connection] | set[Connection] = self._open
        if len(rivals) < self._most:
            if len(rivals) < self._most_an_address or self._is_exempt(peer):
                return True
            rivals = [connection for connection in self._open if connection.peer == peer]
            if len(rivals) < self._most_an_address:
                return True
        longest = min(rivals, key=lambda connection: connection.waiting_since)
        if longest.waiting_since == float("inf"):
            self.count_refusal("too-many-connections")
            return False
        self._evict(longest)
        return True

    def check(self, now: float) -> None:
        """Close connections whose clients are late, and those that read least where too many answers are unread."""
        connected = [connection for connection in self._open if connection.transport is not None]
        for connection in connected:
            connection.check(now)
        unsent = sum(connection.unsent for connection in connected)
        for connection in sorted(connected, key=lambda connection: connection.read_at):
            if unsent <= self._most_unsent:
                break
            if connection.unsent:
                unsent -= connection.unsent
                self._evict(connection)
        self._metrics.unsent_bytes.set(unsent)

    def add(self, connection: Connection) -> None:
        """One was accepted."""
        self._open.add(connection)
        self._metrics.connections.set(len(self._open))

    def remove(self, connection: Connection) -> None:
        """One was closed."""
        self._open.discard(connection)
        self._metrics.connections.set(len(self._open))

    def count_refusal(self, code: str) -> None:
        """A connection or its request was refused before the application saw it."""
        self._metrics.connections_refused.labels(code).inc()

    def _evict(self, connection: Connection) -> None:
        connection.evict()
        self.remove(connection)
        self._metrics.connections_evicted.inc()

    def _is_exempt(self, peer: str) -> bool:
        address = ipaddress.ip_network(peer).network_address
        return address.is_loopback or any(address in network for network in self._exempt)


def peer_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that name a network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        if not ip.is_loopback:
            return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class Listener:
    """Accepts connections of a bound socket. Has what uvicorn asks of an `asyncio.Server`."""

    def __init__(self, bound: socket.socket, connections: Connections, make: Callable[[str], Connection]) -> None:
        """`make` gets the peer."""
        self._socket = bound
        self._connections = connections
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._warn = Throttled(log, logging.WARNING)
        bound.setblocking(False)
        bound.listen(_BACKLOG)
        self._loop.add_reader(bound, self._accept)

    def close(self) -> None:
        """Accept no more. Connections stay."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for after `close`."""

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
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
                self._warn("a connection was refused: too many are open, and all are being answered", peer=peer)
                _refuse(accepted)
                continue
            connection = self._make(peer)
            self._connections.add(connection)
            task = self._loop.create_task(self._start(accepted, connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:  # the client has gone already
            accepted.close()
            self._connections.remove(connection)


def _refuse(accepted: socket.socket) -> None:
    answer = problem(503, "too-many-connections", "too many connections are open; try again in 1 s", "none")
    fields = [*answer.raw_headers, (b"retry-after", b"1"), (b"connection", b"close")]
    head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    with accepted:
        try:
            accepted.send(b"HTTP/1.1 503 Service Unavailable\r\n" + head + b"\r\n" + bytes(answer.body))
            accepted.shutdown(socket.SHUT_WR)
            accepted.recv(2**16)  # what is left unread when a socket closes takes the answer along
        except OSError:
            pass
