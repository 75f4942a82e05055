"""HTTP calls of the fuzz, and what every answer must be whatever was sent."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from bundle import PanError

_LONGEST_PROBLEM = 100_000  # bytes; a refusal must not send back what it refuses


class Fault(PanError):
    """The service answered something that it must not."""

    code = "fault"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and body of an answer."""

    status: int
    content: bytes
    sent: str

    @property
    def ok(self) -> bool:
        """Whether the request was carried out."""
        return self.status < 300

    @property
    def json(self) -> Any:
        """The body, parsed."""
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
    """A path segment that nothing can fold or split: every byte that is no letter or digit is percent-encoded."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text.encode())


def path(*parts: object) -> str:
    """/v1/galleries/... of these parts."""
    return "/".join(["/v1/galleries", *(segment(str(part)) for part in parts)])


class Api:
    """Calls of one server."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, where: str, body: Any = None, *, lines: list[Any] | None = None, **more: Any) -> Reply:
        """Send JSON, lines of JSON, or what httpx takes. Raises Fault for an answer that no request may get."""
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
    """JSON as a careless client writes it: NaN and Infinity as words, lone surrogates escaped."""
    return json.dumps(value).encode()


def _check_problem(answer: httpx.Response, sent: str) -> None:
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise Fault(f"{sent} was refused with {answer.status_code} and no problem document")
    problem = answer.json()
    if problem["status"] != answer.status_code or not problem["code"] or not problem["detail"]:
        raise Fault(f"{sent} was refused with an empty problem: {problem}")
    if len(answer.content) > _LONGEST_PROBLEM:
        raise Fault(f"{sent} was refused with {len(answer.content)} bytes")
