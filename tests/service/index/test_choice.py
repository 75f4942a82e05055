"""The kind of index by the gallery's setting and size."""

from typing import Any

import pytest

from service.index.choice import choose_kind


@pytest.mark.parametrize(
    ("setting", "rows", "dim", "kind"),
    [
        ("auto", 10_000, 1536, None),
        ("auto", 100_000, 1536, "ivf_sq8"),
        ("auto", 1_000_000, 512, "ivf_sq8"),
        ("flat", 1_000_000, 512, None),
        ("hnsw", 100, 512, None),
        ("ivf_pq", 2_048, 512, "ivf_pq"),
    ],
)
def test_a_large_gallery_gets_an_approximate_index_unless_the_setting_decides(
    setting: Any, rows: int, dim: int, kind: str | None
) -> None:
    assert choose_kind(setting, rows, dim) == kind
