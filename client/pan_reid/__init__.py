"""The Python client of PAN Re-ID: enrol and search people by image with a running service.

with Client("http://127.0.0.1:8000") as client:
    client.create_gallery("lobby")
    client.enrol("lobby", [Crop(Path("0001.jpg").read_bytes(), EntryInfo(person_id="1", camera_id="c1"))])
    hits = client.search("lobby", Path("query.jpg").read_bytes(), top_k=10).hits

`AsyncClient` has the same methods as coroutines. `pan_reid.schemas` is the wire contract: the requests and responses of
the API as pydantic models. The package imports nothing of the service, so it can be installed alone.

Names are imported at their first use, so that `pan-reid --help` and the service do not load the HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pan_reid.async_client import AsyncClient
    from pan_reid.endpoints import Crop, VectorCrop
    from pan_reid.errors import ApiError, ClientError, InvalidExport, PanReidError
    from pan_reid.schemas import EntryInfo
    from pan_reid.sync_client import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "Crop",
    "EntryInfo",
    "InvalidExport",
    "PanReidError",
    "VectorCrop",
]

_MODULES = {
    "async_client": ("AsyncClient",),
    "endpoints": ("Crop", "VectorCrop"),
    "errors": ("ApiError", "ClientError", "InvalidExport", "PanReidError"),
    "schemas": ("EntryInfo",),
    "sync_client": ("Client",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"pan_reid.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
