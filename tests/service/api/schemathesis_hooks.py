"""What schemathesis does not know by itself; SCHEMATHESIS_HOOKS names this module."""

import schemathesis
from hypothesis import strategies as st

from tests.support.pictures import png

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
# Its own picture has one pixel, and then no call would get beyond it.
schemathesis.openapi.format("binary", st.sampled_from([png(1), png(2), b"", b"no picture"]))
