"""A typed client of the service, for scripts and for the command line; `AsyncClient` has the same calls to await.

with Client("http://127.0.0.1:8000") as client:
    client.create_gallery("lobby")
    client.enrol("lobby", [Crop(Path("0001.jpg").read_bytes(), EntryInfo(person_id="1", camera_id="c1"))])
    hits = client.search("lobby", Path("query.jpg").read_bytes(), top_k=10).hits

What each call sends and answers is described once, in `calls`; the two clients are two ways to send it.
"""

from service.client.awaiting import AsyncClient
from service.client.blocking import Client
from service.client.calls import Crop, Embedded
from service.client.errors import ApiError, ClientError

__all__ = ["ApiError", "AsyncClient", "Client", "ClientError", "Crop", "Embedded"]
