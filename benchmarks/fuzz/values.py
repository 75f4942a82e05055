"""Strategies for values in requests. Each kind has valid values, which must be accepted, and hostile ones.

A hostile value may be refused or accepted. If it is accepted, the service must return it unchanged.
"""

import base64
import math
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.support.bundles import DIM
from tests.support.pictures import bomb, encode, person

Json = Any
Vector = npt.NDArray[np.float64]

GALLERIES = ("g1", "g2", "Hall-3.b")
PERSONS = ("p1", "p2", "p3", "Zoë")
CAMERAS = ("c1", "c2", "c3")

_visible = st.characters(exclude_categories=("Cs", "Cc"), codec="utf-8")
identifiers = st.text(_visible, min_size=1, max_size=12).filter(lambda text: text.strip(".") != "")
hostile_texts = st.sampled_from(
    [
        "", ".", "..", "...", "/", "a/b", "../..", "%2e%2e", "%00", "a\x00b", "\n", "a\r\nX: y", " ", " a", "a ",
        "\ufeff",
        "\u202eabc", "e\u0301", "é", "\u200b", "😀" * 128, "x" * 128, "x" * 129, "x" * 5000, "null", "true", "0",
        "'; --",
        "<script>", "${x}", "{}", "[]", '"', "\\", "\x7f", "\u2028", "\uffff",
    ]
)  # fmt: skip
wrong_types: st.SearchStrategy[Json] = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 1.5, -0.0, 5e-324, 1e308, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, "", "on",
        "off",
        "yes", "1", [], [1], {}, {"a": 1}, math.nan, math.inf, -math.inf,
    ]
)  # fmt: skip

gallery_names = st.sampled_from(GALLERIES)
person_ids = st.sampled_from(PERSONS) | identifiers
camera_ids = st.sampled_from(CAMERAS)

_offsets = st.integers(-14 * 60, 14 * 60)


@st.composite
def good_times(draw: st.DrawFn) -> str:
    """An RFC 3339 time whose instant lies between the years 2 and 9998, in any zone."""
    day = draw(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)))
    offset = draw(_offsets)
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    zone = draw(st.sampled_from(["Z", f"{sign}{minutes // 60:02}:{minutes % 60:02}"]))
    return day.isoformat() + zone


hostile_times = (
    st.sampled_from(
        [
            "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00-14:00",
            "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59+14:00",
            "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z", "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z", "2016-12-31T23:59:60Z", "2024-01-01T00:00:00", "2024-01-01", "2024-01-01T00:00Z",
            "2024-01-01T00:00:00.123456789Z", "2024-01-01T00:00:00+99:99", "2024-01-01t00:00:00z",
            "2024-01-01 00:00:00Z", "1e300", "253402300799", "-62135596800",
        ]
    )
    | hostile_texts
    | wrong_types
)  # fmt: skip
# Frequent values, so that filters have matches. They must not depend on enrolled entries: Hypothesis replays a
# sequence, and must then draw the same values.
TIMES = ("2024-01-01T00:00:00Z", "2024-05-01T12:30:00+02:00", "1999-12-31T23:59:59.999999-11:30")
PAIRS: tuple[tuple[str, Json], ...] = (("coat", "red"), ("bag", True), ("age", 1), ("age", 1.5), ("é", None))
times = st.none() | st.sampled_from(TIMES) | good_times()

good_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | good_numbers | st.text(_visible, max_size=20)
attributes = st.lists(st.sampled_from(PAIRS), max_size=2).map(dict) | st.dictionaries(
    st.sampled_from(["coat", "bag", "age", "é"]), scalars, max_size=3
)
hostile_attributes: st.SearchStrategy[Json] = (
    st.dictionaries(hostile_texts | identifiers, wrong_types | hostile_texts, max_size=4)
    | st.sampled_from(
        [{str(n): n for n in range(33)}, {"a": "x" * 512}, {"a": "x" * 513}, {"a": {"b": 1}}, {"a": [1, 2]}, [["a", 1]]]
    )
    | wrong_types
)


def direction(seed: int) -> Vector:
    """A random (DIM,) unit vector."""
    vector = np.random.default_rng(seed).normal(size=DIM)
    return np.asarray(vector / np.linalg.norm(vector))


@st.composite
def good_vectors(draw: st.DrawFn) -> Json:
    """The vector scaled to any length in float32, as numbers or in base64."""
    vector = direction(draw(st.integers(0, 200))) * 10.0 ** draw(st.integers(-25, 25))
    if draw(st.booleans()):
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _filled(value: Json, first: Json = None) -> list[Json]:
    return [value if first is None else first, *[value] * (DIM - 1)]


def _base64(four_bytes: bytes) -> str:
    return base64.b64encode(four_bytes * DIM).decode()


# By name, so that Hypothesis can print a strategy without printing thousands of numbers.
_VECTORS: dict[str, Json] = {
    "zero": _filled(0.0),
    "negative zero": _filled(-0.0),
    "squares overflow": _filled(1e38),
    "largest float32": _filled(3.4028235e38),
    "over float32": _filled(1e39),
    "over float32, far": _filled(1e308),
    "denormal": _filled(1.4e-45),
    "one denormal": _filled(0.0, 1.4e-45),
    "two denormals": [1.4e-45, 1.4e-45, *[0.0] * (DIM - 2)],
    "denormal float64": _filled(5e-324),
    "denormals of several sizes": _filled(1e-40, 3e-40),
    "one large": _filled(0.0, 1e38),
    "large and denormal": _filled(1e-39, 1e38),
    "large and small float64": _filled(1e-200, 1e200),
    "one and denormal float64": _filled(1e-320, 1.0),
    "nan": _filled(math.nan),
    "infinite": _filled(0.0, math.inf),
    "true": _filled(True),
    "text": _filled("1"),
    "null": _filled(None),
    "integer over int64": _filled(10**30),
    "integer over float64": _filled(10**400),
    "too short": [1.0] * (DIM - 1),
    "too long": [1.0] * (DIM + 1),
    "nested": [[1.0] * DIM],
    "empty": [],
    "empty text": "",
    "three bytes": "AAAA",
    "not base64": "not base64!",
    "base64 zero": _base64(b"\x00\x00\x00\x00"),
    "base64 nan": _base64(b"\xff\xff\xff\xff"),
    "base64 infinite": _base64(b"\x00\x00\x80\x7f"),
    "base64 largest": _base64(b"\xff\xff\x7f\x7f"),
    "base64 denormal": _base64(b"\x01\x00\x00\x00"),
}
hostile_vectors = st.sampled_from(sorted(_VECTORS)).map(_VECTORS.__getitem__) | wrong_types


def as_vector(sent: Json) -> Vector | None:
    """The expected direction of an accepted vector, in float64."""
    try:
        if isinstance(sent, str):
            numbers = np.frombuffer(base64.b64decode(sent, validate=True), "<f4").astype(np.float64)
        else:
            numbers = np.array([float(number) for number in sent])
        largest = np.abs(numbers).max()
        scaled = numbers / largest  # a square of 1e200 is infinite also in float64
        return np.asarray(scaled / np.linalg.norm(scaled))
    except (TypeError, ValueError, OverflowError):
        return None


pictures = st.integers(0, 40).flatmap(
    lambda seed: st.sampled_from(["PNG", "BMP"]).map(lambda kind: encode(person(seed), kind))
)
_PICTURES = {
    "empty": b"",
    "text": b"GET / HTTP/1.1",
    "truncated PNG": encode(person(1))[:300],
    "truncated JPEG": encode(person(1), "JPEG")[:-200],
    "one pixel": encode(person(1).resize((1, 1))),
    "GIF": encode(person(1).quantize(), "GIF"),
    "bomb": bomb(),
    "only a marker": b"\xff\xd8\xff" + b"\x00" * 64,
    "long": encode(person(1).resize((16, 4000))),
    "CMYK": encode(person(1).convert("CMYK"), "JPEG"),
    "one bit": encode(person(1).convert("1")),
}
hostile_pictures = st.sampled_from(sorted(_PICTURES)).map(_PICTURES.__getitem__)
retentions = st.none() | st.sampled_from([1, 30.5, 365, 36_500])
hostile_retentions = st.sampled_from([0, -1, 1e-12, 5e-324, 1e-9, 36_501, 1e300]) | wrong_types
