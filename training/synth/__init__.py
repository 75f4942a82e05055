"""Synthetic people: renderings of clothed, walking figures seen by several cameras, as data without photographs.

Imports `bundle` only. Public: the names in `__all__`; `generate` writes a data set in the Market-1501 layout.
"""

from training.synth.baseline import histogram_features
from training.synth.camera import Camera, sample_camera
from training.synth.generate import SynthError, SynthSummary, generate
from training.synth.layouts import LAYOUTS
from training.synth.person import Person, sample_person
from training.synth.scene import Shot, render, sample_shot

__all__ = [
    "LAYOUTS",
    "Camera",
    "Person",
    "Shot",
    "SynthError",
    "SynthSummary",
    "generate",
    "histogram_features",
    "render",
    "sample_camera",
    "sample_person",
    "sample_shot",
]
