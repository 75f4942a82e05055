"""The methods of both clients: the same names, signatures and docstrings, one for each operation of the API."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pan_reid import AsyncClient, Client, endpoints
from tests.support.bundles import DIM


def _methods(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method) for name, method in vars(client).items() if callable(method) and name[0] != "_"
    }


def test_both_clients_have_the_same_methods() -> None:
    blocking, awaiting = _methods(Client), _methods(AsyncClient)
    assert {"search", "enrol", "entries", "export_gallery"} <= set(blocking)
    assert set(awaiting) == set(blocking)
    for name, signature in blocking.items():
        text = str(awaiting[name]).replace("AsyncIterator", "Iterator")
        assert text == str(signature), name
        assert inspect.getdoc(getattr(AsyncClient, name)) == inspect.getdoc(getattr(Client, name)), name
        lists = "Iterator" in str(signature.return_annotation)
        assert lists or inspect.iscoroutinefunction(getattr(AsyncClient, name)), name
    assert inspect.signature(AsyncClient) == inspect.signature(Client)


def test_every_operation_of_the_openapi_document_has_a_method() -> None:
    document = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
    wanted = {
        (method.upper(), re.sub(r"{\w+}", "x", path))
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/v1")
    }
    made = {
        ("POST", "/v1/galleries/x/entries/stream"),
        ("POST", "/v1/galleries/x/export"),
    }  # the responses of these two
    made.add(("POST", "/v1/galleries/x/import"))
    for describe in vars(endpoints).values():
        if inspect.isfunction(describe) and describe.__module__ == endpoints.__name__ and describe.__name__[0] != "_":
            call: Any = describe(*(_PLACEHOLDERS[name] for name in _required(describe)))
            made.add((getattr(call, "method", "GET"), call.path.replace("/1", "/x")))
    assert made == wanted


_PLACEHOLDERS: dict[str, Any] = {
    "gallery": "x",
    "name": "x",
    "person_id": "x",
    "entry_id": 1,
    "crops": [],
    "images": [],
}
_PLACEHOLDERS |= {"a": [], "b": [], "vector": np.ones(DIM, np.float32)}


def _required(describe: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(describe).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_method_is_defined_with_the_parameters_of_its_endpoint(client: type) -> None:
    """Editors read the source and do not show signatures that are set at run time."""
    for name, signature in _methods(client).items():
        method = getattr(client, name)
        assert not hasattr(method, "__signature__"), name
        assert method.__qualname__ == f"{client.__name__}.{name}"
        if describe := getattr(endpoints, name, None):
            wanted = list(inspect.signature(describe).parameters.values())
            assert list(signature.parameters.values())[1:] == wanted, name
            assert inspect.getdoc(method) == inspect.getdoc(describe), name
