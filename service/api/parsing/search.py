"""A search, parsed to its query and options."""

from typing import Any

from pan_reid.schemas import SearchOptions
from service.api.parsing.body import Body
from service.api.parsing.images import parse_images, parse_vector, require_count
from service.api.parsing.validation import parse_options
from service.core.errors import InvalidRequest
from service.galleries.commands import EntryQuery, Images, SearchGallery, VectorQuery

_QUERIES = ("images", "vector", "vectors", "entry_id", "entry_ids")
_SINGULAR = ("vector", "entry_id")


def parse_search(caller: str, gallery: str, body: Body, max_items: int) -> SearchGallery:
    """Raises InvalidRequest, or BodyTooLarge for a query of more than `max_items` items."""
    query = _parse_query(body, max_items)
    return SearchGallery(caller, gallery, query, parse_options(SearchOptions, body))


def _parse_query(body: Body, max_items: int) -> Images | VectorQuery | EntryQuery:
    given = [name for name in _QUERIES if name in body.members]
    if not body.is_json:
        if given:
            raise InvalidRequest(f"{', '.join(given)} is a member of JSON bodies; send images as files")
        return parse_images(body, max_items)
    if len(given) != 1:
        raise InvalidRequest(f"a search has exactly one of {', '.join(f'`{name}`' for name in _QUERIES)}")
    (name,) = given
    if name == "images":
        return parse_images(body, max_items)
    value = body.members.pop(name)
    items = [value] if name in _SINGULAR else value
    if not isinstance(items, list) or not items:
        raise InvalidRequest(f"`{name}` is a list with at least one item")
    require_count(items, name, max_items)
    if name in ("vector", "vectors"):
        return VectorQuery(tuple(parse_vector(item) for item in items))
    return EntryQuery(tuple(_entry_id(item) for item in items))


def _entry_id(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**63:
        raise InvalidRequest("an `entry_id` is a positive integer")
    return value
