"""Splitting a body into lines."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.parsing.line_buffer import LineBuffer


@settings(max_examples=30, deadline=None)
@given(
    body=st.binary(max_size=200).map(lambda data: data.replace(b"\0", b"\n")),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    longest=st.integers(1, 40),
)
def test_lines_do_not_depend_on_the_chunks_of_the_body(body: bytes, cuts: list[int], longest: int) -> None:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[a:b] for a, b in pairwise(places)]
    expected = [line if len(line) <= longest else None for line in body.split(b"\n")]
    if expected[-1] == b"":
        expected.pop()

    buffer = LineBuffer(longest)
    found: list[bytes | None] = []
    dropped = 0
    for chunk in [*chunks, None]:
        dropped += -buffer.end() if chunk is None else buffer.feed(chunk)
        while (some := buffer.take(3))[0]:
            found += some[0]
            dropped += some[1]
    assert found == expected
    kept = sum(1 if line is None else len(line) + 1 for line in found)
    assert kept + dropped == len(body)
