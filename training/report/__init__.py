"""`pan-train report`: a run as one self-contained HTML page. `render` makes it."""

from training.report.page import render

__all__ = ["render"]
