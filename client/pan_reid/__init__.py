"""The Python client of PAN Re-ID: search and enrol people by picture through a running service.

with Client("http://127.0.0.1:8000") as client:
    client.create_gallery("lobby")
    client.enrol("lobby", [Crop(Path("0001.jpg").read_bytes(), EntryInfo(person_id="1", camera_id="c1"))])
    hits = client.search("lobby", Path("query.jpg").read_bytes(), top_k=10).hits

`AsyncClient` has the same methods, to await. `pan_reid.schemas` is the wire contract: the requests and responses of the
API as pydantic models. The package imports nothing of the service, so it can be installed alone.
"""

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
