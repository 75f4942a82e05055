"""Raw requests over sockets, which no HTTP client would send."""

import socket
from urllib.parse import urlsplit

import httpx

HOST = b"Host: localhost\r\n"
HEAD = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def read(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection."""
    answer = b""
    while part := connection.recv(2**16):
        answer += part
    return answer


def ask(url: str, request: bytes) -> bytes:
    with connect(url) as connection:
        connection.sendall(request)
        return read(connection)


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
