"""The request bodies in the OpenAPI document: they are read as streams, so FastAPI does not see them."""

from typing import Any

from pydantic import BaseModel

from service.schemas import DecisionOptions, EmbedOptions, EntryInfo, SearchOptions

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_VECTOR = {
    "description": "a vector of this model: numbers, or base64 of float32, little-endian",
    "anyOf": [{"type": "array", "items": {"type": "number"}}, _BASE64],
}
_BOXES = {
    "description": "with one image, a frame: the crops in it, each x, y, width, height in pixels of the upright frame; "
    "in a form, a JSON text",
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
    "minItems": 1,
}
_ENTRY_ID = {"type": "integer", "minimum": 1}
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON object."""
    return _body({"application/json": _schema(model)})


def embeddings_body() -> dict[str, Any]:
    """Images in any of the three ways."""
    options = _schema(EmbedOptions)
    json = _with(options, ["images"], images={"type": "array", "items": _BASE64, "minItems": 1}, boxes=_BOXES)
    return _images_body(json, options)


def compare_body() -> dict[str, Any]:
    """Two sets of images, as files or base64."""
    options = _schema(DecisionOptions)
    kinds = {"multipart/form-data": _BINARY, "application/json": _BASE64}
    return _body(
        {
            kind: _with(
                options, ["a", "b"], **{side: {"type": "array", "items": image, "minItems": 1} for side in "ab"}
            )
            for kind, image in kinds.items()
        }
    )


def search_body() -> dict[str, Any]:
    """Images in any of the three ways, or vectors or entries in JSON."""
    options = _schema(SearchOptions)
    json = _with(
        options,
        [],
        images={"type": "array", "items": _BASE64, "minItems": 1},
        boxes=_BOXES,
        vector=_VECTOR,
        vectors={"type": "array", "items": _VECTOR, "minItems": 1},
        entry_id=_ENTRY_ID,
        entry_ids={"type": "array", "items": _ENTRY_ID, "minItems": 1},
    )
    json["oneOf"] = [{"required": [name]} for name in ("images", "vector", "vectors", "entry_id", "entry_ids")]
    return _images_body(json, options)


def enrol_body() -> dict[str, Any]:
    """Crops with what is known of each."""
    info = _schema(EntryInfo)
    json = {
        "type": "object",
        "additionalProperties": False,
        "required": ["entries"],
        "properties": {"entries": {"type": "array", "items": _entry(info), "minItems": 1}},
    }
    metadata = {"type": "array", "items": info, "description": "one object a file, in their order"}
    return _images_body(json, {"type": "object", "properties": {"metadata": metadata}})


def enrol_lines() -> dict[str, Any]:
    """Entries, one a line."""
    return _body({"application/x-ndjson": {"type": "string", "description": "lines of `StreamedEntry`"}})


def streamed_entry() -> dict[str, Any]:
    """The schema of such a line."""
    return {"title": "StreamedEntry", **_entry(_schema(EntryInfo))}


def _entry(info: dict[str, Any]) -> dict[str, Any]:
    alternatives = [{"required": ["image"]}, {"required": ["vector"]}]
    return {**_with(info, [], image=_BASE64, vector=_VECTOR), "oneOf": alternatives}


def _images_body(json: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    files = _with(form, ["images"], images={"type": "array", "items": _BINARY, "minItems": 1}, boxes=_BOXES)
    raw = dict.fromkeys(_IMAGE_TYPES, _BINARY)
    return _body({"multipart/form-data": files, "application/json": json, **raw})


def _with(schema: dict[str, Any], required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        **schema,
        "properties": {**schema.get("properties", {}), **properties},
        **({"required": [*schema.get("required", []), *required]} if required else {}),
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for not_here in ("title", "$defs"):  # app puts the schemas that are referred to among the components
        schema.pop(not_here, None)
    return schema


def _body(schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}
    }
