"""The report of a run as one self-contained HTML page. Public: `render`, the work of `pan-train report`."""

from training.report.page import render

__all__ = ["render"]
