"""Hooks of schemathesis; SCHEMATHESIS_HOOKS names this module."""

import schemathesis
from hypothesis import strategies as st

from tests.support.pictures import png

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
# The default image of schemathesis has one pixel, which every call would refuse.
schemathesis.openapi.format("binary", st.sampled_from([png(1), png(2), b"", b"no picture"]))
