"""Traces that a collector receives from a real server: the hierarchy of spans, and what they must not contain."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from benchmarks.common.served import Served
from tests.support.pictures import png

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(BaseHTTPRequestHandler):
    """Receives OTLP exports."""

    exports: list[tuple[str, ExportTraceServiceRequest]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.exports.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    Collector.exports = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def spans() -> list[Span]:
    return [
        span
        for path, export in Collector.exports
        if path == "/v1/traces"
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def attributes(span: Span) -> dict[str, object]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def test_a_search_is_one_trace_from_the_client_to_the_index(launch: Callable[..., Served], collector: str) -> None:
    server = launch("--otlp-endpoint", collector)
    with httpx.Client(base_url=server.url, timeout=30) as api:
        api.post("/v1/galleries", json={"name": "secret-hall"})
        entries = "/v1/galleries/secret-hall/entries"
        metadata = '[{"person_id": "secret-person"}, {"person_id": "secret-person"}]'
        pictures = [("images", ("secret-file", png(n))) for n in range(2)]
        assert api.post(entries, files=pictures, data={"metadata": metadata}).status_code == 201
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": "r-1"}
        answer = api.post("/v1/galleries/secret-hall/search", files=pictures[:1], headers=headers)
        assert answer.json()["hits"][0]["person_id"] == "secret-person"
        assert api.delete("/v1/galleries/secret-hall/persons?person_id=secret-nobody").status_code == 404
        api.get("/healthz")
    assert server.stop() == 0
    found = spans()
    by_id = {span.span_id: span for span in found}
    requests = {span.name: span for span in found if span.kind == Span.SPAN_KIND_SERVER}
    assert set(requests) == {
        "POST /v1/galleries",
        "POST /v1/galleries/{gallery}/entries",
        "POST /v1/galleries/{gallery}/search",
        "DELETE /v1/galleries/{gallery}/persons",
    }
    search = requests["POST /v1/galleries/{gallery}/search"]
    assert (search.trace_id.hex(), search.parent_span_id.hex()) == (TRACE, CALLER)
    assert attributes(search) == {
        "http.request.method": "POST",
        "http.route": "/v1/galleries/{gallery}/search",
        "http.response.status_code": 200,
        "pan.request_id": "r-1",
    }
    parents = {
        span.name: by_id[span.parent_span_id].name
        for span in found
        if span.trace_id == search.trace_id and span is not search
    }
    assert set(parents) == {"decode", "engine", "engine wait", "search", "search wait", "commit"}
    assert set(parents.values()) == {search.name}
    for span in found:
        if span.parent_span_id in by_id:
            parent = by_id[span.parent_span_id]
            assert parent.start_time_unix_nano <= span.start_time_unix_nano + 10**6, span.name
            assert span.end_time_unix_nano <= parent.end_time_unix_nano + 10**6, span.name
    batches = [span for span in found if span.name == "engine batch"]
    assert sum(int(str(attributes(span)["pan.batch.size"])) for span in batches) == 4  # with the warm-up
    enrolment = requests["POST /v1/galleries/{gallery}/entries"]
    assert {link.span_id for span in batches for link in span.links} == {search.span_id, enrolment.span_id}
    assert requests["DELETE /v1/galleries/{gallery}/persons"].status.code == Status.STATUS_CODE_UNSET
    exported = b"".join(export.SerializeToString() for _, export in Collector.exports)
    assert b"secret" not in exported
    assert b"127.0.0.1" not in exported


def test_an_unreachable_collector_does_not_affect_requests_or_shutdown(launch: Callable[..., Served]) -> None:
    server = launch("--otlp-endpoint", "http://127.0.0.1:9")
    assert httpx.get(f"{server.url}/v1/galleries").status_code == 200
    assert server.stop() == 0


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_without_the_extra_otel_tracing_is_a_startup_error() -> None:
    ask = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from service.observability.tracing import export_spans\n"
        "with export_spans({!r}): print('entered')\n"
    )
    done = _run(ask.format("http://127.0.0.1:4318"))
    assert done.returncode == 1
    assert "StartupError" in done.stderr
    assert "pip install ./client '.[otel]'" in done.stderr
    assert _run(ask.format(None)).stdout == "entered\n"
    assert "not the URL of an OTLP collector" in _run(ask.format("localhost:4318")).stderr


def test_the_opentelemetry_sdk_is_imported_only_with_an_endpoint() -> None:
    sdk = "[name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]"
    done = _run(f"import sys, service.api.server, pan_reid; print({sdk})")
    assert done.stdout == "[]\n", done.stderr
