"""The documentation site builds in strict mode, its links resolve, and no page loads files from another host."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from training.config import RunConfig

ROOT = Path(__file__).parents[2]
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """The ids of a page, and the addresses of the files that a browser loads with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the id and the address."""
        given = dict(attrs)
        if identifier := given.get("id"):
            self.ids.add(identifier)
        if address := given.get(LOADS.get(tag, "")):
            self.loaded.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    foreign = {(page.name, address) for page in pages for address in Page(page).loaded if "//" in address}
    assert foreign == set()
    imports = re.compile(r"(@import|url\()\s*[\"']?(https?:)?//")
    styles = [style.name for style in site.rglob("*.css") if imports.search(style.read_text(encoding="utf-8"))]
    assert styles == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_from_readme_resolve(site: Path, name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    for link in (link for link in links if "://" not in link):
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        if anchor:
            page = site / Path(path).relative_to("docs").with_suffix(".html")
            assert anchor in Page(page).ids, link


def test_the_reference_has_every_setting_command_and_call(site: Path) -> None:
    reference = site / "reference"
    settings = (reference / "settings.html").read_text(encoding="utf-8")
    for group, field in RunConfig.model_fields.items():
        assert f"<code>{group}" in settings
        for name in getattr(type(field.default), "model_fields", {}):
            assert f"<code>{group}.{name}</code>" in settings
    service_settings = (reference / "service-settings.html").read_text(encoding="utf-8")
    assert "PAN_MAX_QUEUE" in service_settings
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in service_settings
    assert "--max-queue" in (reference / "pan-serve.html").read_text(encoding="utf-8")
    assert "--calibration" in (reference / "pan-export.html").read_text(encoding="utf-8")
    assert "pan-train data check" in (reference / "pan-train.html").read_text(encoding="utf-8")
    assert "POST /v1/galleries/{gallery}/search" in (reference / "api.html").read_text(encoding="utf-8")
