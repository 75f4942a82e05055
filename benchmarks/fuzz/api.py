"""HTTP calls of the fuzz test, and the checks that apply to every response."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from bundle import PanError

_MAX_PROBLEM_BYTES = 100_000  # bytes; an error must not repeat the request


class Fault(PanError):
    """The service sent a wrong response."""

    code = "fault"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and body of a response."""

    status: int
    content: bytes
    sent: str

    @property
    def ok(self) -> bool:
        """True if the request succeeded."""
        return self.status < 300

    @property
    def json(self) -> Any:
        """The body as parsed JSON."""
        return json.loads(self.content)

    @property
    def lines(self) -> list[Any]:
        """The body as JSON lines."""
        return [json.loads(line) for line in self.content.splitlines()]

    def expect(self, *statuses: int) -> "Reply":
        """Raises Fault for any other status."""
        if self.status not in statuses:
            raise Fault(f"{self.sent} was answered {self.status}, expected {statuses}: {self.content[:500]!r}")
        return self


def segment(text: str) -> str:
    """A path segment in which every byte but letters and digits is percent-encoded."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())


def path(*parts: object) -> str:
    """The path /v1/galleries/... from these segments."""
    return "/".join(["/v1/galleries", *(segment(str(part)) for part in parts)])


class Api:
    """Calls to one server."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, where: str, body: Any = None, *, lines: list[Any] | None = None, **more: Any) -> Reply:
        """Send JSON, JSON lines, or arguments of httpx. Raises Fault for a response that is never valid."""
        headers = more.pop("headers", {})
        if lines is not None:
            more["content"] = b"".join(_dumps(line) + b"\n" for line in lines)
            headers = {"Content-Type": "application/x-ndjson", **headers}
        elif body is not None:
            more["content"] = _dumps(body)
            headers = {"Content-Type": "application/json", **headers}
        answer = self._http.request(method, where, headers=headers, **more)
        sent = f"{method} {where} {str(more)[:2000]} {headers}"
        if answer.status_code >= 500:
            raise Fault(f"{sent} was answered {answer.status_code}: {answer.text[:500]}")
        if answer.status_code >= 400 and method != "HEAD":
            _check_problem(answer, sent)
        return Reply(answer.status_code, answer.content, sent)


def _dumps(value: Any) -> bytes:
    """JSON with NaN and Infinity as words, and escaped lone surrogates."""
    return json.dumps(value).encode()


def _check_problem(answer: httpx.Response, sent: str) -> None:
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise Fault(f"{sent} was refused with {answer.status_code} and no problem document")
    problem = answer.json()
    if problem["status"] != answer.status_code or not problem["code"] or not problem["detail"]:
        raise Fault(f"{sent} was refused with an empty problem: {problem}")
    if len(answer.content) > _MAX_PROBLEM_BYTES:
        raise Fault(f"{sent} was refused with {len(answer.content)} bytes")
