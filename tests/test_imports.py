"""The allowed imports between packages, between the layers of the service, and at the start of a command."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"pan_reid": ROOT / "client" / "pan_reid"}  # all others are in the root folder
FORBIDDEN = {
    "bundle": {"torch", "fastapi", "training", "export", "service", "pan_reid"},
    "training": {"service", "export", "fastapi", "pan_reid"},
    "export": {"service", "fastapi", "pan_reid"},
    "pan_reid": {"torch", "fastapi", "orjson", "bundle", "training", "export", "service"},
    "service": {"torch", "training", "export"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_a_forbidden_one(package: str) -> None:
    files = sorted(SOURCES.get(package, ROOT / package).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): names for file in files if (names := imported(file) & FORBIDDEN[package])}
    assert found == {}


LAYERS = [  # of the service, top to bottom: each imports only layers below it
    "cli",
    "api",
    "container",
    "workers",
    "galleries",
    "auth",
    "index",
    "inference",
    "batching",
    "storage",
    "observability",
    "core",
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The modules of the service that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "service":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


def service_imports() -> dict[str, set[str]]:
    """The modules of the service, with the modules that each imports."""
    files = {module_name(path): path for path in sorted((ROOT / "service").rglob("*.py"))}
    return {name: imported_modules(path, set(files)) - {name} for name, path in files.items()}


def layer_of(module: str) -> str:
    """The layer of a module; an empty string for `service` and `service.__main__`, which are in none."""
    layer = module.split(".")[1] if "." in module else ""
    return "" if layer == "__main__" else layer


def imports_across_layers() -> list[tuple[str, str]]:
    """Every import between two layers: the importing module and the imported one."""
    pairs = [(module, target) for module, targets in service_imports().items() for target in sorted(targets)]
    return [(m, t) for m, t in pairs if layer_of(t) and layer_of(m) != layer_of(t)]


def test_every_layer_imports_only_layers_below_it() -> None:
    rank = {layer: place for place, layer in enumerate(LAYERS)}
    assert {layer_of(module) for module in service_imports()} - {""} == set(LAYERS)
    upward = [(m, t) for m, t in imports_across_layers() if layer_of(m) and rank[layer_of(t)] < rank[layer_of(m)]]
    assert upward == []


def source_of(package: str) -> ast.Module:
    return ast.parse(ROOT.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8"))


def exported(package: str) -> list[str] | None:
    """`__all__` of a package, read from its source; None if it has none."""
    for node in source_of(package).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return None


def test_all_of_a_layer_lists_exactly_the_modules_that_other_layers_import() -> None:
    """A nested package with such modules, as `inference.engines`, has a list of its own."""
    imported_by_others: dict[str, set[str]] = {}
    for _, target in imports_across_layers():
        parts = target.split(".")
        for depth in range(2, len(parts)):
            imported_by_others.setdefault(".".join(parts[:depth]), set()).add(parts[depth])
    assert {package: exported(package) for package in imported_by_others} == {
        package: sorted(modules) for package, modules in imported_by_others.items()
    }


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "container"])
def test_a_layer_imports_only_the_layers_that_its_docstring_allows(layer: str) -> None:
    """The docstring has a line "May import: LAYER, LAYER." or "May import: no other layer." """
    docstring = ast.get_docstring(source_of(f"service.{layer}")) or ""
    line = re.search(r"^May import: (.+)\.$", docstring, re.MULTILINE)
    assert line, f"the docstring of service.{layer} does not say what the layer may import"
    allowed = set() if line[1] == "no other layer" else set(line[1].split(", "))
    assert {layer_of(t) for m, t in imports_across_layers() if layer_of(m) == layer} <= allowed <= set(LAYERS)


def test_routes_import_only_commands_and_results_of_the_use_cases() -> None:
    """Commands and results are plain data, so a use case could run in another process."""
    data = {"commands", "results", "enrolment_results", "query.match_policy"}
    allowed = {f"service.galleries.{name}" for name in data} | {"service.container", "service.observability.metrics"}
    wrong = []
    for module, targets in service_imports().items():
        if module.startswith(("service.api.routes.", "service.api.parsing.", "service.api.mapping")):
            wrong += [
                f"{module} -> {target}"
                for target in targets
                if target.startswith("service.api.routes.")
                or not (target in allowed or layer_of(target) in {"api", "core"})
            ]
    assert wrong == []


def test_the_modules_of_the_service_have_no_import_cycle() -> None:
    graph = service_imports()
    for start in graph:
        reached, waiting = set(), [start]
        while waiting:
            for target in graph.get(waiting.pop(), set()) - reached:
                reached.add(target)
                waiting.append(target)
        assert start not in reached, f"{start} imports itself through other modules"


@pytest.mark.parametrize("module", ["bundle", "pan_reid", "service.api.app", "service.api.server", "service.cli.main"])
def test_importing_a_package_loads_no_forbidden_one(module: str) -> None:
    program = f"import sys, {module}; print(*(name.split('.')[0] for name in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not set(loaded.split()) & FORBIDDEN[module.split(".")[0]]


def test_the_client_command_loads_no_engine() -> None:
    """`pan-reid` must run on machines without onnxruntime and faiss."""
    program = "import sys, pan_reid.cli.main, pan_reid.cli.enrol_folder, pan_reid.cli.tables; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not set(loaded.split()) & {"onnxruntime", "faiss", "fastapi", "uvicorn"}


@pytest.mark.parametrize(("package", "command"), [("service", "re-embed"), ("pan_reid", "galleries")])
def test_help_loads_no_slow_package(package: str, command: str) -> None:
    """`--help` must print within 0.3 seconds, and each of these packages takes at least 0.1 seconds to import."""
    program = f"""
import sys
sys.argv = ["command", "--help"]
from {package}.cli.main import main
try:
    main()
finally:
    print(*(name.split(".")[0] for name in sys.modules), file=sys.stderr)
"""
    # Coverage imports sqlite3.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, env=unmeasured
    )
    assert command in done.stdout
    slow = {"numpy", "PIL", "pydantic", "httpx", "fastapi", "uvicorn", "asyncio", "sqlite3", "onnxruntime", "faiss"}
    assert not set(done.stderr.split()) & slow


@pytest.mark.parametrize("module", ["service.inference.engine", "export.engines"])
def test_onnxruntime_telemetry_is_disabled_before_its_import(module: str) -> None:
    program = f"""
import sys, os
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("at import:", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import {module}, onnxruntime
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert done.stdout.split("\n")[0] == "at import: 1"
