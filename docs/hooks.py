"""MkDocs hook: generates the reference pages from the code, so that they cannot differ from it."""

import functools
import importlib
import importlib.util
import inspect
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from typer.cli import get_docs_for_click

ROOT = Path(__file__).parents[1]
_METHODS = ("get", "post", "put", "patch", "delete")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the generated pages in the navigation."""
    section = next(entry for entry in config.nav or () if "Reference" in entry)
    section["Reference"] = [{title: f"reference/{name}.md"} for name, (title, _) in reference().items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those on disk."""
    for name, (_, content) in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


@functools.cache
def reference() -> dict[str, tuple[str, str]]:
    """Title and Markdown of each generated page, by its name."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    return {
        **{name: (name, command_line(name, target)) for name, target in console_scripts().items()},
        "service-settings": ("Service settings", service_settings()),
        "settings": ("Training settings", training_settings()),
        "api": ("HTTP API", http_api(document)),
        "python": ("Python client", python_client()),
    }


def console_scripts() -> dict[str, str]:
    """The commands that the distributions install, and their entry points."""
    found: dict[str, str] = {}
    for path in (ROOT / "pyproject.toml", ROOT / "client" / "pyproject.toml"):
        found |= tomllib.loads(path.read_text(encoding="utf-8"))["project"].get("scripts", {})
    return found


def service_settings() -> str:
    """Every option of `pan-serve run` with its environment variable."""
    from service.cli.environment import variables

    lines = [
        "# Service settings",
        "",
        "Each setting is an option of `pan-serve run` and an environment variable; the option takes precedence.",
        "`pan-serve config` shows the values. See [deploy](../how-to/deployment.md#settings).",
        "",
        "| option | variable | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for param in application(console_scripts()["pan-serve"]).commands["run"].params:
        default = "required" if param.required else _default(param.default)
        names = ", ".join(f"`{name}`" for name in variables(param))
        meaning = _cell(param.help.replace("\\[", "["))
        lines.append(f"| `{param.opts[0]}` | {names} | {default} | {meaning} |")
    return "\n".join([*lines, ""])


def _default(value: Any) -> str:
    if value in (None, ()):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def training_settings() -> str:
    """Every setting of `pan-train run`, from the pydantic model."""
    from training.config import PRESETS, RunConfig

    lines = [
        "# Training settings",
        "",
        "Give a setting on the command line as `group.key=value`, or in a YAML file with `--config`; see",
        "[train](../how-to/training.md). A preset changes the defaults; without one, `preset=paper` applies.",
        "",
        "| setting | default | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{name}` | {_cell(default)} | {_cell(text)} |" for name, default, text in _settings(RunConfig)]
    lines += ["", "## Presets", "", "| preset | changes |", "| --- | --- |"]
    for preset, changes in PRESETS.items():
        text = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in _flat(changes))
        lines.append(f"| `{preset}` | {text or 'none'} |")
    return "\n".join([*lines, ""])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from _settings(type(default), f"{prefix}{name}.")
        else:
            value = list(default) if isinstance(default, tuple) else default
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value), str(field.description)


def command_line(script: str, entry_point: str) -> str:
    """The help of a command and all its subcommands."""
    command = application(entry_point)
    for one in getattr(command, "commands", {}).values():
        one.short_help = (one.help or "").split("\n\n")[0]  # without it, the list of commands cuts each help text
    return get_docs_for_click(obj=command, ctx=typer.Context(command, info_name=script), name=script)


def application(entry_point: str) -> Any:
    """The command behind a console script: the Typer `app` of its module, or of the module `app` or `main` in it."""
    module = entry_point.split(":")[0]
    for name in (module, f"{module}.app", f"{module}.main"):
        found = getattr(importlib.import_module(name), "app", None) if importlib.util.find_spec(name) else None
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
    raise LookupError(f"no Typer application behind {entry_point}")


def python_client() -> str:
    """The public names of `pan_reid`: signatures and docstrings."""
    import pan_reid

    lines = ["# Python client", "", "```text", inspect.getdoc(pan_reid) or "", "```", ""]
    for name in pan_reid.__all__:
        one = getattr(pan_reid, name)
        lines += [f"## {name}", "", inspect.getdoc(one) or "", ""]
        if issubclass(one, BaseModel):
            lines += _properties(one.model_json_schema()["properties"], one.model_json_schema())
        # The methods of AsyncClient are those of Client.
        for method, function in inspect.getmembers(one, inspect.isfunction) if name == "Client" else ():
            if not method.startswith("_"):
                lines += [f"### {name}.{method}", "", f"```python\n{_signature(method, function)}\n```", ""]
                lines += [inspect.getdoc(function) or "", ""]
    return "\n".join(lines)


def _signature(name: str, function: Any) -> str:
    """A signature without the modules of its types, and without quotes around types."""
    text = re.sub(r"\b[\w.]+\.(?=\w)", "", str(inspect.signature(function)))
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    return name + re.sub(r"^\(self(, /)?(, )?", "(", text).replace("NoneType", "None")


def http_api(document: dict[str, Any]) -> str:
    """Every call and every schema of the OpenAPI document."""
    schemas = document["components"]["schemas"]
    lines = [
        "# HTTP API",
        "",
        document["info"]["description"],
        "",
        "The machine-readable form is [openapi.json](../openapi.json); a running service serves it at `/openapi.json`",
        "and an interactive form of it at `/docs`.",
        "",
    ]
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                lines += _operation(method, path, operations[method])
    lines += ["## Schemas", ""]
    for name, schema in schemas.items():
        lines += _schema(name, schema)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    scopes = [scope for one in operation.get("security", []) for scope in one.get("apiKey", [])]
    lines = [f"## {operation['summary']}", "", f"`{method.upper()} {path}`", ""]
    if operation.get("security"):
        lines += [f"Scope: `{'`, `'.join(scopes)}`" if scopes else "Needs a key with any scope.", ""]
    lines += [operation.get("description", ""), ""]
    if parameters := operation.get("parameters"):
        lines += ["| parameter | in | type | meaning |", "| --- | --- | --- | --- |"]
        for one in parameters:
            required = " (required)" if one.get("required") else ""
            text = _cell(one.get("description", ""))
            lines.append(f"| `{one['name']}`{required} | {one['in']} | {_type(one['schema'])} | {text} |")
        lines.append("")
    if body := operation.get("requestBody"):
        lines += ["| body | schema |", "| --- | --- |"]
        for content_type, media in body["content"].items():
            schema = media.get("schema", {})
            lines.append(f"| `{content_type}` | {_type(schema)} |")
        lines.append("")
        for content_type, media in body["content"].items():
            if properties := media.get("schema", {}).get("properties"):
                lines += [f"Members of `{content_type}`:", "", *_properties(properties, media["schema"])]
    lines += ["| status | meaning | body |", "| --- | --- | --- |"]
    for status, response in operation["responses"].items():
        bodies = [_type(media.get("schema", {})) for media in response.get("content", {}).values()]
        lines.append(f"| {status} | {_cell(response['description'])} | {', '.join(dict.fromkeys(bodies))} |")
    return [*lines, ""]


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    lines = [f"### {name}", "", schema.get("description", ""), ""]
    if properties := schema.get("properties"):
        return [*lines, *_properties(properties, schema)]
    return [*lines, f"Type: {_type(schema)}", ""]


def _properties(properties: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
    lines = [] if prefix else ["| member | type | meaning |", "| --- | --- | --- |"]
    for name, one in properties.items():
        required = " (required)" if name in schema.get("required", ()) else ""
        lines.append(f"| `{prefix}{name}`{required} | {_type(one)} | {_cell(one.get('description', ''))} |")
        items = one.get("items", {})
        if "properties" in items:
            lines += _properties(items["properties"], items, f"{prefix}{name}[].")
    return lines if prefix else [*lines, ""]


def _type(schema: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[choice]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any")
    return str(schema.get("format", kind) if kind == "string" else kind)


def _cell(text: str) -> str:
    """Text that fits into a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
