"""Types, entry models, the clock, errors and settings, for every layer.

May import: no other layer.
"""

__all__ = [
    "choices",
    "clock",
    "errors",
    "models",
    "packages",
    "serial_executor",
    "settings",
    "types",
    "vectors",
]
