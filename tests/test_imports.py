"""Which package may import which: bundle <- training <- export, and bundle, pan_reid <- service."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"pan_reid": ROOT / "client" / "pan_reid"}  # the others are in the root
FORBIDDEN = {
    "bundle": {"torch", "fastapi", "training", "export", "service", "pan_reid"},
    "training": {"service", "export", "fastapi", "pan_reid"},
    "export": {"service", "fastapi", "pan_reid"},
    "pan_reid": {"torch", "fastapi", "orjson", "bundle", "training", "export", "service"},
    "service": {"torch", "training", "export"},
}


def imported(path: Path) -> set[str]:
    """The top-level names of the modules a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports here are absolute"
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_of_a_package_imports_what_it_must_not(package: str) -> None:
    files = sorted(SOURCES.get(package, ROOT / package).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): names for file in files if (names := imported(file) & FORBIDDEN[package])}
    assert found == {}


LAYERS = [  # of the service, top to bottom: each imports only what stands below it
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
    """The modules of the service that a file imports, wherever in the file it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "service":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


def service_imports() -> dict[str, set[str]]:
    """Every module of the service, and those it imports."""
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


def test_every_layer_of_the_service_imports_only_what_stands_below_it() -> None:
    rank = {layer: place for place, layer in enumerate(LAYERS)}
    assert {layer_of(module) for module in service_imports()} - {""} == set(LAYERS)
    upward = [(m, t) for m, t in imports_across_layers() if layer_of(m) and rank[layer_of(t)] < rank[layer_of(m)]]
    assert upward == []


def exported(package: str) -> list[str] | None:
    """`__all__` of a package, read from its source; None if it has none."""
    source = ROOT.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return None


def test_other_layers_import_only_the_public_modules_of_a_layer() -> None:
    """`__all__` of a layer names them. A nested package such as `inference.engines` names its own."""
    private = []
    for module, target in imports_across_layers():
        parts = target.split(".")
        for depth in range(2, len(parts)):
            package = ".".join(parts[:depth])
            public = exported(package)
            if public is not None and parts[depth] not in public:
                private.append(f"{module} -> {target}, which is not in {package}.__all__")
    assert private == []


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "container"])
def test_every_name_in_all_of_a_layer_is_a_module_of_it(layer: str) -> None:
    folder = ROOT / "service" / layer
    public = exported(f"service.{layer}") or []
    assert public == sorted(set(public))
    assert [name for name in public if not ((folder / f"{name}.py").exists() or (folder / name).is_dir())] == []


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "container"])
def test_a_layer_imports_only_the_layers_that_its_docstring_allows(layer: str) -> None:
    """The docstring has a line "May import: LAYER, LAYER." or "May import: no other layer." """
    docstring = ast.get_docstring(ast.parse((ROOT / "service" / layer / "__init__.py").read_text(encoding="utf-8")))
    line = re.search(r"^May import: (.+)\.$", docstring or "", re.MULTILINE)
    if line is None:
        return
    allowed = set() if line[1] == "no other layer" else set(line[1].split(", "))
    assert {layer_of(t) for m, t in imports_across_layers() if layer_of(m) == layer} <= allowed <= set(LAYERS)


def test_routes_know_commands_and_results_and_nothing_behind_the_use_cases() -> None:
    """So a use case may run in another process: whatever a route gives and gets is plain data."""
    data = {"commands", "results", "enrolment_results", "match_policy"}
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


def test_no_modules_of_the_service_import_each_other_in_a_circle() -> None:
    graph = service_imports()
    for start in graph:
        reached, waiting = set(), [start]
        while waiting:
            for target in graph.get(waiting.pop(), set()) - reached:
                reached.add(target)
                waiting.append(target)
        assert start not in reached, f"{start} imports itself by way of others"


@pytest.mark.parametrize("module", ["bundle", "pan_reid", "service.api.app", "service.api.server", "service.cli.main"])
def test_importing_it_loads_neither_torch_nor_another_stage(module: str) -> None:
    program = f"import sys, {module}; print(*(name.split('.')[0] for name in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not set(loaded.split()) & FORBIDDEN[module.split(".")[0]]


def test_the_clients_of_a_running_service_need_no_engine() -> None:
    """`pan-reid` runs on machines without onnxruntime or faiss."""
    program = "import sys, pan_reid.cli.main, pan_reid.cli.enrol_folder, pan_reid.cli.tables; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not set(loaded.split()) & {"onnxruntime", "faiss", "fastapi", "uvicorn"}


@pytest.mark.parametrize(("package", "command"), [("service", "re-embed"), ("pan_reid", "galleries")])
def test_help_loads_nothing_but_what_prints_it(package: str, command: str) -> None:
    """`--help` answers in a fraction of a second: each of these alone costs a tenth of one, or more."""
    program = f"""
import sys
sys.argv = ["a command", "--help"]
from {package}.cli.main import main
try:
    main()
finally:
    print(*(name.split(".")[0] for name in sys.modules), file=sys.stderr)
"""
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # it loads sqlite3
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, env=unmeasured
    )
    assert command in done.stdout
    slow = {"numpy", "PIL", "pydantic", "httpx", "fastapi", "uvicorn", "asyncio", "sqlite3", "onnxruntime", "faiss"}
    assert not set(done.stderr.split()) & slow


@pytest.mark.parametrize("module", ["service.inference.engine", "export.engines"])
def test_the_runtime_is_told_to_report_nothing_before_it_is_imported(module: str) -> None:
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
