"""The service itself: model, health, metrics, OpenAPI document and its page."""

import json
import re
from pathlib import Path

import httpx
import orjson

from pan_reid import schemas
from tests.service.api.calls import b64, enrol, files
from tests.support.bundles import DIM, HEIGHT, WIDTH
from tests.support.pictures import png
from tests.support.servers import pan_serve


def test_the_root_redirects_to_the_documentation(api: httpx.Client) -> None:
    answer = api.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/docs")


def test_the_loaded_model_is_described(api: httpx.Client) -> None:
    model = schemas.Model.model_validate_json(api.get("/v1/model").content)
    assert (model.dim, model.input_height, model.input_width, model.device) == (DIM, HEIGHT, WIDTH, "cpu")
    assert (model.engine, model.precision, model.file, model.max_batch) == ("onnxruntime", "float32", "model.onnx", 32)
    assert model.reason.startswith("onnxruntime on cpu, float32, selected by auto")
    assert model.parity.cosine_min >= model.parity.gate_cosine_min


def test_liveness_and_readiness(api: httpx.Client) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json() == {"status": "ok", "failing": [], "set_aside": 0, "galleries_set_aside": 0}


def test_metrics_count_requests_by_route_template(api: httpx.Client, gallery: str) -> None:
    enrol(api, gallery, {"image": b64(png(1)), "person_id": "secret-person"})
    api.delete(f"/v1/galleries/{gallery}/persons", params={"person_id": "secret-person"})
    api.post("/v1/embeddings", files=files(b"bad"))
    api.request("BREW", "/coffee/secret-person")
    text = api.get("/metrics").text
    assert 'pan_requests_total{method="POST",route="/v1/galleries/{gallery}/entries",status="201"}' in text
    assert 'pan_images_rejected_total{code="unsupported-image"}' in text
    assert f'pan_gallery_entries{{gallery="{gallery}"}} 0.0' in text
    assert "secret-person" not in text
    assert "BREW" not in text


def test_the_openapi_document_describes_every_call_its_bodies_and_its_errors(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    calls = {(method, path): call for path, item in document["paths"].items() for method, call in item.items()}
    assert ("post", "/v1/galleries/{gallery}/search") in calls
    assert len(calls) == 28
    for (method, path), call in calls.items():
        assert call["summary"], path
        assert "500" in call["responses"], path
        if "{gallery}" in path:
            assert "404" in call["responses"], path
        if method in {"post", "patch"} and not path.endswith(("/purge", "/export", "/import", "/re-embed", "/stream")):
            assert "application/json" in call["requestBody"]["content"], path
    text = orjson.dumps(document).decode()
    for reference in {part.split('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"], reference
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_docs_openapi_json_is_up_to_date(api: httpx.Client) -> None:
    path = Path(__file__).parents[4] / "docs" / "openapi.json"
    written, served = json.loads(path.read_text()), api.get("/openapi.json").json()
    assert written == served, "the API has changed; run: pan-serve openapi > docs/openapi.json"
    assert pan_serve("openapi").stdout == path.read_text()


def test_the_documentation_page_contacts_no_other_host(api: httpx.Client) -> None:
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "://" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    parts = {address: api.get(f"/{address}") for address in addresses if not address.startswith("data:")}
    assert [part.status_code for part in parts.values()] == [200, 200, 200]
    assert "SwaggerUIBundle" in parts["docs/swagger-ui-bundle.js"].text
    assert "://" not in parts["docs/start.js"].text
