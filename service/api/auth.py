"""Authentication: the API key of a request, its scopes, and the rules that hold while no key is required."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from service.api.dependencies import ContainerDep
from service.api.parsing.query_string import refuse_unknown_query
from service.auth.keys import UNKNOWN
from service.core.errors import CrossSiteRequest, NotFound, Refused, UnsupportedBody
from service.core.settings import Settings

_BEARER = HTTPBearer(
    scheme_name="apiKey",
    description="A key from `pan-serve key create`. Each call names the scope that the key must have; `admin` includes "
    "all scopes.",
    auto_error=False,
)
_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


async def _authenticate(
    request: Request,
    service: ContainerDep,
    needed: SecurityScopes,
    sent: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> str:
    """The caller for the audit log: the name of the key, or the address if no key is required."""
    key = None
    try:
        key = service.keys.authenticate(sent.credentials if sent else None)
        if key is None:
            _require_same_site(request, service.settings)
        else:
            for scope in needed.scopes:
                key.require(scope)
    except Refused as error:
        service.refusals.count(_address(request), key.name if key else None, error.reason)
        raise
    return key.name if key else _address(request)


async def _authorize(
    request: Request,
    service: ContainerDep,
    needed: SecurityScopes,
    sent: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> str:
    """As `_authenticate`. Then refuses unknown query parameters: a caller without access learns nothing of the call."""
    name = await _authenticate(request, service, needed, sent)
    await refuse_unknown_query(request)
    return name


def _address(request: Request) -> str:
    """The address of the client. A trusted proxy may have given it, so it can be any text."""
    try:
        return str(ip_address(request.client.host if request.client else ""))
    except ValueError:
        return UNKNOWN


def _require_same_site(request: Request, settings: Settings) -> None:
    """Refuse pages of other sites while no key is required.

    A browser that reaches this address sends requests for any page. Such a request has an `Origin`, and in newer
    browsers `Sec-Fetch-Site`. A page whose name resolves to this address (DNS rebinding) has the same origin and can
    read the responses; such a request has that name in `Host`.
    """
    host = request.headers.get("host", "").lower()
    if not _is_allowed_host(host, settings.allowed_hosts):
        raise CrossSiteRequest(
            f"without API keys the service does not answer to the name {host[:100]!r}: create a key, or start it with "
            "--allowed-host and this name"
        )
    origin = request.headers.get("origin")
    is_same_origin = origin is None or origin.lower().partition("://")[2] == host
    if not is_same_origin or request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise CrossSiteRequest("without API keys the service refuses requests from pages of other sites: create a key")


def _is_allowed_host(host: str, names: Sequence[str]) -> bool:
    if not host:  # HTTP/1.0, which no browser sends
        return True
    if (match := _HOST.fullmatch(host)) is None:
        return False
    name = match["name"].rstrip(".")
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost" or name in {allowed.lower() for allowed in names}
    return True


async def require_plain_request(request: Request) -> None:
    """Refuse `%2F` in a path, which by now divides the path like a slash, and compressed bodies.

    Raises NotFound or UnsupportedBody.
    """
    if b"%2f" in request.scope["raw_path"].lower():
        raise NotFound("there is nothing at this path; no name in a path has a slash (%2F)")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedBody(f"Content-Encoding {encoding[:50]}: send the body without compression")


# Every route that reads or changes galleries depends on one of these, every other route on `KnownQuery`.
# Routes for monitoring ignore the query: scrapers and probes add parameters of their own.
KnownQuery = Depends(refuse_unknown_query)
Caller = Annotated[str, Security(_authorize)]  # with any key
MonitoringCaller = Annotated[str, Security(_authenticate)]
EmbedCaller = Annotated[str, Security(_authorize, scopes=["embed"])]
SearchCaller = Annotated[str, Security(_authorize, scopes=["search"])]
EnrolCaller = Annotated[str, Security(_authorize, scopes=["enrol"])]
EraseCaller = Annotated[str, Security(_authorize, scopes=["erase"])]
ExportCaller = Annotated[str, Security(_authorize, scopes=["export"])]
AdminCaller = Annotated[str, Security(_authorize, scopes=["admin"])]
