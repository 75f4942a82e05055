"""Clients generated from the OpenAPI document: generated without warnings, and used against a server."""

import base64
import importlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from service.core.settings import Settings
from tests.support.bundles import DIM
from tests.support.pictures import png
from tests.support.servers import running

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"
# The generator treats two body types as bytes only if configured; see docs/how-to/clients.md.
CONFIG = """
content_type_overrides:
  application/x-ndjson: application/octet-stream
  image/jpeg: application/octet-stream
post_hooks: []
"""
OPERATIONS = {
    "embeddings": ["embed"],
    "entries": ["enrol", "enrol_stream", "get_entry", "get_image", "list_entries", "update_entry"],
    "galleries": ["create_gallery", "export_gallery", "get_gallery", "import_gallery", "update_gallery"],
    "persons": ["erase_person", "list_persons"],
    "search": ["search"],
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package that openapi-python-client generates: models, types, and a function for each operation."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "config.yml").write_text(CONFIG)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    places = ["--path", str(DOCUMENT), "--output-path", str(folder / "pan_generated"), "--config", "config.yml"]
    made = subprocess.run([*command, *places], cwd=folder, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in made.stdout.lower()
    sys.path.insert(0, str(folder))
    try:
        calls = {
            name: importlib.import_module(f"pan_generated.api.{tag}.{name}").sync_detailed
            for tag, names in OPERATIONS.items()
            for name in names
        }
        yield SimpleNamespace(
            Client=importlib.import_module("pan_generated.client").Client,
            models=importlib.import_module("pan_generated.models"),
            File=importlib.import_module("pan_generated.types").File,
            **calls,
        )
    finally:
        sys.path.remove(str(folder))


def _file(made: Any, data: bytes) -> Any:
    return made.File(payload=io.BytesIO(data), file_name="crop.png", mime_type="image/png")


def test_a_generated_client_enrols_searches_changes_and_erases(generated: Any, bundle: Path, tmp_path: Path) -> None:
    models = generated.models
    with (
        running(Settings(bundle=bundle, data=tmp_path)) as http,
        generated.Client(base_url=str(http.base_url)) as client,
    ):

        def ask(call: Any, *path: Any, status: int = 200, **options: Any) -> Any:
            answer = call(*path, client=client, **options)
            assert answer.status_code == status, answer.content
            return answer.parsed

        made = models.CreateGalleryBody(name="hall", keep_crops=True, retention_days=30.0)
        assert ask(generated.create_gallery, body=made, status=201).name == "hall"

        metadata = json.dumps([{"person_id": f"p{n}", "camera_id": "c1"} for n in range(3)])
        form = models.EnrolFilesBody(images=[_file(generated, png(n)) for n in range(3)], metadata=metadata)
        assert ask(generated.enrol, "hall", body=form, status=201).enrolled == 3
        item = models.EnrolJsonBodyEntriesItem(image=b64(png(3)), person_id="..")
        body = models.EnrolJsonBody(entries=[item])
        assert ask(generated.enrol, "hall", body=body, idempotency_key="k1", status=201).enrolled == 1
        assert ask(generated.enrol, "hall", body=body, idempotency_key="k1", status=201).enrolled == 1
        raw = generated.File(payload=png(4))
        told = {"person_id": "p4", "attributes": '{"coat": "red"}'}
        ask(generated.enrol, "hall", body=raw, status=201, **told)
        vector = np.ones(DIM, "<f4")
        line = {"vector": base64.b64encode(vector.tobytes()).decode(), "person_id": "p5"}
        stream = generated.File(payload=json.dumps(line).encode() + b"\n")
        assert json.loads(ask(generated.enrol_stream, "hall", body=stream).splitlines()[-1])["enrolled"] == 1

        # The same search by each type of body.
        form = models.SearchFilesBody(images=[_file(generated, png(4))], top_k=1, cameras=["c1"])
        found = [ask(generated.search, "hall", body=form).hits]
        body = models.SearchJsonBody(images=[b64(png(4))], top_k=1, cameras=["c1"])
        found.append(ask(generated.search, "hall", body=body).hits)
        found.append(ask(generated.search, "hall", body=raw, top_k=1, cameras=["c1"]).hits)
        assert len({(one.entry_id, one.camera_id) for (one,) in found}) == 1
        attributes = models.SearchFilesBodyAttributes.from_dict({"coat": ["red", "blue"]})
        form = models.SearchFilesBody(images=[_file(generated, png(4))], attributes=attributes)
        assert [hit.person_id for hit in ask(generated.search, "hall", body=form).hits] == ["p4"]
        body = models.SearchJsonBody(vectors=[vector.tolist()], rerank=models.Rerank(candidates=50))
        assert ask(generated.search, "hall", body=body).hits[0].person_id == "p5"
        embedded = ask(generated.embed, body=models.EmbedFilesBody(images=[_file(generated, png(4))]))
        body = models.SearchJsonBody(vector=embedded.embeddings[0].embedding, top_k=1)
        assert ask(generated.search, "hall", body=body).hits[0].person_id == "p4"

        # A change contains only the given members: crops are kept, retention stays.
        changed = ask(generated.update_gallery, "hall", body=models.UpdateGalleryBody(purpose="a test"))
        assert (changed.purpose, changed.retention_days, changed.keep_crops) == ("a test", 30.0, True)
        entries = ask(generated.list_entries, "hall", limit=10).entries
        assert [one.image for one in entries] == [True] * 5 + [False]
        renamed = ask(generated.update_entry, "hall", 1, body=models.UpdateEntryBody(person_id="p9"))
        assert (renamed.person_id, renamed.camera_id) == ("p9", "c1")
        assert generated.get_image("hall", 1, client=client).content[:2] == b"\xff\xd8"

        exported = generated.File(payload=generated.export_gallery("hall", client=client).content)
        assert ask(generated.import_gallery, "copy", body=exported, status=201).entries == 6
        assert ask(generated.erase_person, "hall", person_id="..").entries == 1
        assert ask(generated.get_gallery, "hall").entries == 5
        assert {one.person_id for one in ask(generated.list_persons, "hall").persons} == {"p9", "p1", "p2", "p4", "p5"}


CHECK = """
import type { operations } from "./api"

type Search = operations["search"]
const form: Search["requestBody"]["content"]["multipart/form-data"] = { images: ["..."], top_k: 5, fuse: "best" }
const json: Search["requestBody"]["content"]["application/json"] = { entry_id: 1, rerank: { candidates: 20 } }
const raw: Search["parameters"]["query"] = { top_k: 5, cameras: ["c1"] }
const erased: operations["erase_person"]["parameters"]["query"] = { person_id: ".." }
const hit = (answer: Search["responses"][200]["content"]["application/json"]): number => answer.hits![0].score
export default { form, json, raw, erased, hit }
"""


def test_generated_typescript_types_match_responses(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)

    (tmp_path / "package.json").write_text("{}")
    installed = run(npm, "install", "--no-audit", "--no-fund", "openapi-typescript@7", "typescript@5")
    if installed.returncode:
        pytest.skip(f"npm cannot install: {installed.stderr[-200:]}")
    programs = tmp_path / "node_modules" / ".bin"
    made = run(str(programs / "openapi-typescript"), str(DOCUMENT), "-o", "api.ts")
    assert made.returncode == 0, made.stderr
    (tmp_path / "check.ts").write_text(CHECK)
    checked = run(str(programs / "tsc"), "--noEmit", "--strict", "--skipLibCheck", "check.ts")
    assert checked.returncode == 0, checked.stdout


def test_the_openapi_document_names_calls_shortly() -> None:
    paths = json.loads(DOCUMENT.read_text())["paths"]
    ids = [call["operationId"] for path in paths.values() for call in path.values()]
    assert len(set(ids)) == len(ids)
    assert {"search", "enrol", "enrol_stream", "erase_person", "export_gallery", "get_model"} <= set(ids)


def test_an_option_that_is_given_twice_is_refused(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/search"
    image = {"images": ("a", png(1))}
    for answer in (
        api.post(path, params={"top_k": 3}, json={"images": [b64(png(1))], "top_k": 5}),
        api.post(path, params={"top_k": 3}, files=image, data={"top_k": "5"}),
    ):
        assert answer.status_code == 422
        assert "top_k: in the query and in the body" in answer.json()["detail"]
    assert api.post(path, params={"top_k": 3}, files=image).status_code == 200
