"""The documentation of request bodies and problems. Routes parse bodies themselves, so FastAPI cannot document them.

The document suits client generators. Which of several members is required is stated in the description, because a
`oneOf` of `required` turns the whole body into `Any`. A form has no null, sends a list as one field for each item, and
a list of objects or boxes as JSON text. The options of a raw body are query parameters. They have no defaults, because
a generated client sends every default, and an option may be given only once.
"""

from typing import Any

from pydantic import BaseModel

from pan_reid.schemas import DecisionOptions, EmbedOptions, EntryInfo, SearchOptions

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_VECTOR = {
    "description": "a vector of this model: numbers, or base64 of float32 in little-endian order",
    "anyOf": [{"type": "array", "items": {"type": "number"}}, _BASE64],
}
_BOXES_TEXT = "the image is one frame, and each box is a crop of it: x, y, width, height in pixels of the upright frame"
_BOXES = {
    "description": _BOXES_TEXT,
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
    "minItems": 1,
}
_ENTRY_ID = {"type": "integer", "minimum": 1}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEM_TITLES = {
    401: "The API key is missing or not valid",
    403: "The API key lacks the scope of this call; or no key is required, and a page of another site calls",
    404: "There is no such gallery, entry or person",
    409: "The request conflicts with the state of the service",
    413: "The request exceeds a size limit",
    414: "Path and query are too long; send the options in the body",
    415: "The content type or image format is not supported",
    422: "The request is not valid",
    429: "The service is overloaded, or the key has exceeded its rate; Retry-After gives the seconds to wait",
    500: "The service has a fault",
    503: "The engine or the database fails",
    504: "The deadline was exceeded",
    507: "The disk is full",
}
EMBEDDING_PROBLEMS = (413, 414, 415, 429, 503, 504)
_QUERIES = "`images`, `vector`, `vectors`, `entry_id` and `entry_ids`"
_RAW = "application/octet-stream"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that requires a key: these problems, and those that every such route has."""
    return open_problems(401, 403, 429, *statuses)


def open_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that requires no key."""
    return {
        status: {"description": _PROBLEM_TITLES[status], "content": _PROBLEM}
        for status in sorted({*statuses, 422, 500})
    }


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON object."""
    return _body({"application/json": _schema(model)})


def changes_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON object without defaults: a generated client would send a default as a change."""
    schema = _schema(model)
    schema["properties"] = {name: _without_default(value) for name, value in schema["properties"].items()}
    return _body({"application/json": schema})


def embeddings_body() -> dict[str, Any]:
    """Images as multipart, JSON or one raw body."""
    options = _schema(EmbedOptions)
    json = _with(options, ["images"], images={"type": "array", "items": _BASE64, "minItems": 1}, boxes=_BOXES)
    return _images_body(json, options)


def compare_body() -> dict[str, Any]:
    """Two sets of images, as files or base64."""
    options = _schema(DecisionOptions)

    def sides(schema: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
        return _with(schema, ["a", "b"], **{side: {"type": "array", "items": image, "minItems": 1} for side in "ab"})

    json, form = sides(options, _BASE64), sides(_form(options), _BINARY)
    return _body({"multipart/form-data": form, "application/json": json})


def search_body() -> dict[str, Any]:
    """Images as multipart, JSON or one raw body; or vectors or entries in JSON."""
    options = _schema(SearchOptions)
    json = _with(
        {**options, "description": f"Exactly one of {_QUERIES}, and options. {options['description']}"},
        [],
        images={"type": "array", "items": _BASE64, "minItems": 1},
        boxes=_BOXES,
        vector=_VECTOR,
        vectors={"type": "array", "items": _VECTOR, "minItems": 1},
        entry_id=_ENTRY_ID,
        entry_ids={"type": "array", "items": _ENTRY_ID, "minItems": 1},
    )
    return _images_body(json, options)


def enrol_body() -> dict[str, Any]:
    """Crops with their metadata."""
    info = _schema(EntryInfo)
    json = {
        "type": "object",
        "additionalProperties": False,
        "required": ["entries"],
        "properties": {"entries": {"type": "array", "items": _entry(info), "minItems": 1}},
    }
    metadata = _text({"type": "array", "items": info}, "one object for each crop, in the order of the files or boxes")
    return _images_body(json, _with(info, [], metadata=metadata), info)


def enrol_lines() -> dict[str, Any]:
    """Entries, one on each line."""
    return _body({"application/x-ndjson": {**_BINARY, "description": "lines of `StreamedEntry`"}})


def streamed_entry() -> dict[str, Any]:
    """The schema of a line."""
    return {"title": "StreamedEntry", **_entry(_schema(EntryInfo))}


def _entry(info: dict[str, Any]) -> dict[str, Any]:
    description = f"{info['description']} Exactly one of `image` and `vector` is required."
    return {**_with(info, [], image=_BASE64, vector=_VECTOR), "description": description}


def _images_body(json: dict[str, Any], form: dict[str, Any], raw: dict[str, Any] | None = None) -> dict[str, Any]:
    """`form` are the options besides images; `raw` those of a raw body, if they differ."""
    boxes = _text(_BOXES, _BOXES_TEXT)
    files = _with(_form(form), ["images"], images={"type": "array", "items": _BINARY, "minItems": 1}, boxes=boxes)
    options = _with(raw or form, [], boxes=_BOXES)
    one = {**_BINARY, "description": "one image; any type `image/*` is accepted as well"}
    body = _body({"multipart/form-data": files, "application/json": json, _RAW: one})
    return {**body, "parameters": [_parameter(name, schema) for name, schema in options["properties"].items()]}


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An option of a raw body. An object or a list of lists is JSON text."""
    schema = _without_default(_without_null(schema))
    description = schema.pop("description", "")
    if "$ref" in schema or schema.get("type") == "object" or schema.get("items", {}).get("type") == "array":
        schema = _text(schema)
    note = "for one raw image; in other bodies this is a member"
    text = f"{description}; {note}" if description else note
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _form(options: dict[str, Any]) -> dict[str, Any]:
    """Options as the fields of a form."""
    return {**options, "properties": {name: _without_null(each) for name, each in options["properties"].items()}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} not in schema.get("anyOf", []):
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    kept = [one for one in schema["anyOf"] if one != {"type": "null"}]
    return {**kept[0], **rest} if len(kept) == 1 else {"anyOf": kept, **rest}


def _without_default(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "default"}


def component(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model that other schemas refer to. Defaults are in the descriptions: generators for TypeScript
    treat a member of a component with a default as required.
    """
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    for name, member in schema["properties"].items():
        if member.get("default") is not None:
            text = f"{member['description']}; " if "description" in member else ""
            member["description"] = f"{text}default {member['default']}"
        schema["properties"][name] = _without_default(member)
    return schema


def _text(schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    """JSON text of this schema."""
    text = {"description": f"{description}; JSON text"} if description else {}
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema, **text}


def _with(schema: dict[str, Any], required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        **schema,
        "properties": {**schema.get("properties", {}), **properties},
        **({"required": [*schema.get("required", []), *required]} if required else {}),
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("title", "$defs"):  # `app` adds the schemas of `$defs` to the components
        schema.pop(name, None)
    return schema


def _body(schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}
    }
