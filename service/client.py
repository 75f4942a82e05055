"""A typed client of the service, for scripts and for the command line.

with Client("http://127.0.0.1:8000") as client:
    client.create_gallery("lobby")
    client.enrol("lobby", [Crop(Path("0001.jpg").read_bytes(), EntryInfo(person_id="1", camera_id="c1"))])
    hits = client.search("lobby", Path("query.jpg").read_bytes(), top_k=10).hits
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Self
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from bundle import PanError
from service.errors import InvalidRequest
from service.lines import Reader
from service.schemas import (
    Comparison,
    Enrolled,
    Entry,
    EntryInfo,
    EntryPage,
    Erased,
    Explanations,
    Gallery,
    GalleryList,
    Model,
    Person,
    PersonPage,
    SearchAnswer,
)

_RETRIED = (429, 503)
_LONGEST_WAIT = 60.0
_LONGEST_IMPORT = 600.0  # seconds without a sign of the service: it builds the index at the end
_JSON_FIELDS = ("attributes", "rerank", "boxes")  # of a form
_NOTHING_KNOWN = EntryInfo()


class ClientError(PanError):
    """The service could not be reached, or answered something that is no answer of its API."""

    code: ClassVar[str] = "client"


class ApiError(ClientError):
    """The service answered with a problem. `problem_code` is its stable code, `status` the HTTP status."""

    code: ClassVar[str] = "api"

    def __init__(self, status: int, problem_code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{detail} ({status} {problem_code}, request {request_id})")
        self.status = status
        self.problem_code = problem_code
        self.detail = detail
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Crop:
    """The bytes of a picture of one person, and what is known of it."""

    image: bytes
    info: EntryInfo = _NOTHING_KNOWN


class Client:
    """Calls are safe from several threads. A full queue and a short outage are waited for, up to `retries` times.

    The API key is the one given, or that in the environment variable PAN_API_KEY, where there is one.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 8,
    ) -> None:
        api_key = api_key or os.environ.get("PAN_API_KEY")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers)
        self._retries = retries

    def __enter__(self) -> Self:
        """The client itself; leaving closes its connections."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._http.close()

    def model(self) -> Model:
        """The model that is loaded."""
        return Model.model_validate_json(self._call("GET", "/v1/model"))

    def embed(self, images: Sequence[bytes], boxes: Sequence[Sequence[float]] | None = None) -> npt.NDArray[np.float32]:
        """(images, dim) unit vectors; or (boxes, dim), of the boxes (x, y, width, height in pixels) in one frame.

        Raises ApiError if any image or box cannot be used.
        """
        form = _form({} if boxes is None else {"boxes": boxes})
        data = self._call("POST", "/v1/embeddings", files=_files(images), form=form, accept="application/octet-stream")
        vectors: npt.NDArray[np.float32] = np.load(BytesIO(data), allow_pickle=False)
        return vectors

    def explain(self, images: Sequence[bytes], boxes: Sequence[Sequence[float]] | None = None) -> Explanations:
        """Part masks and compatibility maps of a few images, or of boxes in one frame."""
        form = _form({} if boxes is None else {"boxes": boxes})
        return Explanations.model_validate_json(self._call("POST", "/v1/explain", files=_files(images), form=form))

    def galleries(self) -> list[Gallery]:
        """Every gallery, by name."""
        return GalleryList.model_validate_json(self._call("GET", "/v1/galleries")).galleries

    def gallery(self, name: str) -> Gallery:
        """Raises ApiError with status 404 when there is none."""
        return Gallery.model_validate_json(self._call("GET", _path(name)))

    def create_gallery(self, name: str, purpose: str = "", *, retention_days: float | None = None) -> Gallery:
        """Raises ApiError with status 409 when the name is taken."""
        wanted = {"name": name, "purpose": purpose, "retention_days": retention_days}
        return Gallery.model_validate_json(self._call("POST", "/v1/galleries", json=wanted))

    def export_gallery(self, gallery: str, write: Callable[[bytes], object]) -> None:
        """Write the file of a gallery, chunk by chunk, and check that it is whole. Raises ClientError."""
        reader = Reader()
        try:
            with self._http.stream("POST", _path(gallery, "export")) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _api_error(answer)
                for chunk in answer.iter_bytes():
                    write(chunk)
                    for _ in reader.feed(chunk):
                        pass
            reader.finish()
        except httpx.ConnectError as error:
            raise self._no_answer(error) from error
        except (httpx.TransportError, InvalidRequest) as error:
            raise ClientError(f"the export of {gallery} broke off ({error}); export it again") from error

    def import_gallery(self, gallery: str, file: BinaryIO) -> Gallery:
        """Make a gallery of an exported file. Raises ClientError, and then there is no such gallery."""
        headers = {"Content-Type": "application/octet-stream"}
        try:
            answer = self._http.post(_path(gallery, "import"), content=file, headers=headers, timeout=_LONGEST_IMPORT)
        except httpx.ConnectError as error:
            raise self._no_answer(error) from error
        except httpx.TransportError as error:
            raise ClientError(
                f"the import into {gallery} broke off ({error}); see whether the gallery is there"
            ) from error
        if not answer.is_success:
            raise _api_error(answer)
        return Gallery.model_validate_json(answer.content)

    def purge(self, gallery: str) -> Erased:
        """Erase what has expired now, and know when it is done."""
        return Erased.model_validate_json(self._call("POST", _path(gallery, "purge")))

    def delete_gallery(self, name: str) -> Erased:
        """Erase a gallery with all it holds."""
        return Erased.model_validate_json(self._call("DELETE", _path(name)))

    def enrol(self, gallery: str, crops: Sequence[Crop]) -> Enrolled:
        """Enrol crops; the answer says for each whether it was. Sent again after a failure, none is enrolled twice."""
        metadata = orjson.dumps([crop.info.model_dump(exclude_unset=True) for crop in crops])
        data = self._call(
            "POST",
            _path(gallery, "entries"),
            files=_files([crop.image for crop in crops]),
            form={"metadata": metadata.decode()},
            idempotency_key=uuid.uuid4().hex,
        )
        return Enrolled.model_validate_json(data)

    def entries(self, gallery: str, **filters: str) -> Iterator[Entry]:
        """Every entry in the order of enrolment; filters are person_id and camera_id."""
        for page in self._pages(_path(gallery, "entries"), filters):
            yield from EntryPage.model_validate_json(page).entries

    def delete_entry(self, gallery: str, entry_id: int) -> None:
        """Delete an entry and its vector."""
        self._call("DELETE", _path(gallery, "entries", str(entry_id)))

    def persons(self, gallery: str) -> Iterator[Person]:
        """Every person, by id."""
        for page in self._pages(_path(gallery, "persons"), {}):
            yield from PersonPage.model_validate_json(page).persons

    def erase_person(self, gallery: str, person_id: str) -> Erased:
        """Erase every entry of a person in this gallery."""
        return Erased.model_validate_json(self._call("DELETE", _path(gallery, "persons", person_id)))

    def search(self, gallery: str, *images: bytes, **options: Any) -> SearchAnswer:
        """Search by one image, or by several of one person. Options are those of `service.schemas.SearchOptions`."""
        data = self._call("POST", _path(gallery, "search"), files=_files(images), form=_form(options))
        return SearchAnswer.model_validate_json(data)

    def search_vector(self, gallery: str, vector: npt.NDArray[np.float32], **options: Any) -> SearchAnswer:
        """Search by a (dim,) vector of the same model, or by (n, dim) of one person."""
        data = self._call("POST", _path(gallery, "search"), json={"vectors": np.atleast_2d(vector), **options})
        return SearchAnswer.model_validate_json(data)

    def search_entry(self, gallery: str, *entry_ids: int, **options: Any) -> SearchAnswer:
        """Search by an entry of the gallery, or several of one person; they are not among their own hits."""
        data = self._call("POST", _path(gallery, "search"), json={"entry_ids": entry_ids, **options})
        return SearchAnswer.model_validate_json(data)

    def compare(self, a: Sequence[bytes], b: Sequence[bytes], **options: Any) -> Comparison:
        """Do two sets of images show one person? Options are those of `service.schemas.DecisionOptions`."""
        files = _files(a, "a") + _files(b, "b")
        return Comparison.model_validate_json(self._call("POST", "/v1/compare", files=files, form=_form(options)))

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        cursor: str | None = None
        while True:
            page = self._call("GET", path, query={**query, "limit": "1000", **({"cursor": cursor} if cursor else {})})
            yield page
            cursor = orjson.loads(page)["next_cursor"]
            if cursor is None:
                return

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: dict[str, Any] | None = None,
        files: list[tuple[str, tuple[str, bytes]]] | None = None,
        form: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
        accept: str = "application/json",
        idempotency_key: str | None = None,
    ) -> bytes:
        headers = {"Accept": accept}
        content = None
        if json is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(json, option=orjson.OPT_SERIALIZE_NUMPY)
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            wait = min(_LONGEST_WAIT, 0.25 * 2**attempt)
            try:
                answer = self._http.request(
                    method, path, content=content, files=files, data=form, params=query, headers=headers
                )
            except httpx.TransportError as error:
                # A request that changes something and has no key may have been carried out: it is not repeated.
                repeatable = method == "GET" or idempotency_key is not None or isinstance(error, httpx.ConnectError)
                if last or not repeatable or attempt >= 2:
                    raise self._no_answer(error) from error
            else:
                if answer.is_success:
                    return answer.content
                if last or answer.status_code not in _RETRIED:
                    raise _api_error(answer)
                wait = float(answer.headers.get("Retry-After", wait))
            time.sleep(min(wait, _LONGEST_WAIT))
        raise AssertionError("the last attempt returns or raises")

    def _no_answer(self, error: httpx.TransportError) -> ClientError:
        return ClientError(
            f"no answer from {self._http.base_url} ({type(error).__name__}: {error}); is `pan-serve run` there?"
        )


def _path(gallery: str, *more: str) -> str:
    return "/".join(["/v1/galleries", *(quote(part, safe="") for part in (gallery, *more))])


def _files(images: Sequence[bytes], name: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (str(index), image)) for index, image in enumerate(images)]


def _form(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _field(name, value) for name, value in options.items()}


def _field(name: str, value: Any) -> Any:
    if name in _JSON_FIELDS:
        return orjson.dumps(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


def _api_error(answer: httpx.Response) -> ClientError:
    try:
        problem = answer.json()
        return ApiError(answer.status_code, problem["code"], problem["detail"], problem["request_id"])
    except (ValueError, KeyError, TypeError):
        return ClientError(f"{answer.url} answered {answer.status_code} and no problem document; is it pan-serve?")
