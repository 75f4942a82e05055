"""A gallery of known images on a server, and brute force over their vectors."""

from typing import Any

import httpx
import numpy as np

from bundle import load_crop
from pan_reid import schemas
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import png

PATH = "/v1/galleries/town/search"


CROPS = [
    # (picture, person, camera)
    *[((person, shot), f"p{person}", f"c{1 + shot % 3}") for person in range(1, 9) for shot in range(5)],
    *[((90 + n, 0), None, "c1") for n in range(4)],
    *[((person, 77), f"p{person}", None) for person in (1, 2)],
]


def seen(n: int) -> dict[str, Any]:
    """Attributes, and a time for two thirds of the entries."""
    at = {} if n % 3 == 0 else {"captured_at": f"2024-05-01T{n // 2:02}:00:00Z"}
    return {**at, "attributes": {"coat": ["red", "blue", None][n % 3], "bags": n % 4, "hat": n % 2 == 0}}


def vector(*picture: int) -> np.ndarray:
    return reference_embedding(load_crop(png(*picture), HEIGHT, WIDTH)[None])[0]


VECTORS = np.stack([vector(*picture) for picture, _, _ in CROPS])


def brute_force(query: np.ndarray, keep: Any = lambda *_: True) -> list[tuple[int, float]]:
    scores = VECTORS @ (query / np.linalg.norm(query))
    kept = [n for n, (_, person, camera) in enumerate(CROPS) if keep(person, camera)]
    return [(n + 1, scores[n]) for n in sorted(kept, key=lambda n: -scores[n])]


def check(answer: httpx.Response, truth: list[tuple[int, float]]) -> schemas.SearchAnswer:
    assert answer.status_code == 200, answer.text
    found = schemas.SearchAnswer.model_validate_json(answer.content)
    assert found.hits is not None
    assert [hit.entry_id for hit in found.hits] == [entry for entry, _ in truth]
    np.testing.assert_allclose([hit.score for hit in found.hits], [score for _, score in truth], atol=1e-5)
    for hit in found.hits:
        assert (hit.person_id, hit.camera_id) == CROPS[hit.entry_id - 1][1:]
    return found


def by_image(town: httpx.Client, *pictures: tuple[int, ...], **options: Any) -> httpx.Response:
    files = [("images", ("x", png(*picture))) for picture in pictures]
    return town.post(PATH, files=files, data=options)
