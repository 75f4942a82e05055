"""Messages for unknown names, with the nearest known name."""

import difflib
from collections.abc import Sequence


def unknown_name(name: str, known: Sequence[str]) -> str:
    """That a name is unknown, in words, and which was probably meant."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"{name} is unknown; " + (f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}")
