"""Types of the callbacks that report progress."""

from collections.abc import Callable

StepCallback = Callable[[str], None]
"""Called with a short text when the next step begins."""

ProgressCallback = Callable[[int, int], None]
"""Called with (items done, items in all)."""
