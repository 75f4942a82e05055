"""The HTTP status and headers of errors."""

import pytest

from bundle.errors import ImageError, ImageTooComplex, UnsupportedImage
from service.api.problems import problem_response, status_of
from service.core import errors


def subclasses(base: type) -> set[type]:
    direct = set(base.__subclasses__())
    return direct.union(*map(subclasses, direct))


def test_every_error_except_those_of_the_startup_has_a_status_of_its_own() -> None:
    for kind in subclasses(errors.ServiceError) | subclasses(ImageError):
        error = kind.__new__(kind)
        assert (status_of(error) == 500) == isinstance(error, errors.StartupError), kind


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnusableImages("none"), 422),
        (errors.CrossSiteRequest("another site"), 403),
        (errors.NoImage("no picture"), 404),
        (UnsupportedImage("a GIF"), 415),
        (ImageTooComplex("too many scans"), 422),
        (errors.BoxOutOfBounds("outside"), 422),
    ],
)
def test_an_error_without_its_own_status_has_the_status_of_its_base_class(error: errors.PanError, status: int) -> None:
    assert problem_response(error, "id").status_code == status


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (errors.RateLimited("too many", 7), "Retry-After", "7"),
        (errors.Unauthenticated("no key"), "WWW-Authenticate", 'Bearer realm="pan-reid"'),
        (
            errors.Forbidden("no scope", "erase"),
            "WWW-Authenticate",
            'Bearer realm="pan-reid", error="insufficient_scope", scope="erase"',
        ),
    ],
)
def test_an_error_sets_the_headers_that_its_status_requires(error: errors.PanError, name: str, value: str) -> None:
    assert problem_response(error, "id").headers[name] == value
