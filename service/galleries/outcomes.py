"""Outcomes of several images: results, or the errors of single images."""

from collections.abc import Sequence
from typing import TypeVar

from bundle import ImageError
from service.core.errors import UnusableImages

T = TypeVar("T")


def require_all(outcomes: Sequence[T | ImageError], names: Sequence[str]) -> list[T]:
    """The results of all images. Raises the error of the image if there is one image, else UnusableImages.

    `names` are the positions of the images in the request.
    """
    usable = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    if len(usable) == len(outcomes):
        return usable
    if len(outcomes) == 1 and isinstance(outcomes[0], ImageError):
        raise outcomes[0]
    failures = [
        {"at": name, "problem": str(outcome), "code": outcome.code}
        for name, outcome in zip(names, outcomes, strict=True)
        if isinstance(outcome, ImageError)
    ]
    raise UnusableImages(
        f"{len(failures)} of {len(outcomes)} images cannot be used: {failures[0]['problem']}", failures
    )


def require_any(outcomes: Sequence[T | ImageError], names: Sequence[str]) -> None:
    """Raises as `require_all` if no image can be used."""
    if all(isinstance(outcome, ImageError) for outcome in outcomes):
        require_all(outcomes, names)
