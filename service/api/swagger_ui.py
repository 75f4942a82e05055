"""/docs: Swagger UI for the OpenAPI document. All files are served from here; other hosts are never contacted."""

from importlib.resources import files
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from service.api.auth import KnownQuery
from service.api.responses import JsonResponse, dumps

router = APIRouter(include_in_schema=False, dependencies=[KnownQuery])

# The package is used for its files only: an unmodified distribution of Swagger UI.
_SWAGGER_UI = Path(str(files(fastapi_offline) / "static"))

# URLs are relative, so that the page works behind a proxy that adds a path prefix.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>PAN Re-ID: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """// Swagger UI fills forms with invented values. Optional fields stay empty instead.
function withoutExamples(document) {
  for (const path of Object.values(document.paths)) {
    for (const call of Object.values(path)) {
      const form = call.requestBody?.content["multipart/form-data"]?.schema
      for (const [name, property] of Object.entries(form?.properties ?? {})) {
        if (form.required?.includes(name) || property.default != null) continue
        const kinds = [property, ...(property.anyOf ?? [])].map((each) => each.type)
        property.example = kinds.includes("array") ? [] : kinds.includes("object") ? {} : ""
      }
    }
  }
  return document
}

fetch("openapi.json").then((response) => response.json()).then((document) => SwaggerUIBundle({
  spec: withoutExamples(document),
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: -1,
  tryItOutEnabled: true,
  validatorUrl: null,
}))
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_CACHED = {"Cache-Control": "public, max-age=3600"}


@router.get("/")
async def start_page() -> Response:
    """Redirect a browser to the documentation."""
    return RedirectResponse("docs")


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """The OpenAPI document. It needs no key, so it is encoded only once."""
    state = request.app.state
    if not hasattr(state, "document"):
        state.document = dumps(request.app.openapi())
    return JsonResponse(state.document)


@router.get("/docs")
async def page() -> Response:
    """The page has no inline scripts, so that its policy can forbid them."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """The script that starts Swagger UI."""
    return Response(_START, media_type="text/javascript", headers=_CACHED)


@router.get("/docs/swagger-ui-bundle.js")
async def script() -> Response:
    """The script of Swagger UI."""
    return FileResponse(_SWAGGER_UI / "swagger-ui-bundle.js", media_type="text/javascript", headers=_CACHED)


@router.get("/docs/swagger-ui.css")
async def style() -> Response:
    """The style sheet of Swagger UI."""
    return FileResponse(_SWAGGER_UI / "swagger-ui.css", media_type="text/css", headers=_CACHED)
