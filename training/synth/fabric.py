"""Cloth patterns and prints as functions of the position on a garment.

Shapes: N points; colours are (N, 3) float32 in 0..1.
"""

import numpy as np
import numpy.typing as npt

from training.synth.person import Colour, Fabric, Print
from training.synth.raster import Floats, Paint

Mask = npt.NDArray[np.bool_]


def solid(colour: Colour, points: int) -> Floats:
    """One colour for every point."""
    return np.tile(np.array(colour, np.float32), (points, 1))


def paint_solid(colour: Colour) -> Paint:
    """A tube of one colour."""
    return lambda at: solid(colour, len(at.angle))


def shaded(colour: Colour, share: float) -> Colour:
    """A colour with `share` of its brightness."""
    return colour[0] * share, colour[1] * share, colour[2] * share


def cover(colours: Floats, mask: Mask, colour: Colour) -> None:
    """Paint the points of a mask in place."""
    colours[mask] = np.array(colour, np.float32)


def weave(fabric: Fabric, across: Floats, along: Floats) -> Floats:
    """The fabric at (N,) points `across` and `along` a garment, in metres; `along` grows downwards from the collar."""
    colours = solid(fabric.base, len(across))
    cover(colours, _accented(fabric, across, along), fabric.accent)
    if fabric.pattern == "camouflage":
        third = tuple((a + b) * 0.35 for a, b in zip(fabric.base, fabric.accent, strict=True))
        cover(colours, _blots(fabric, along, across) > 0.55, (third[0], third[1], third[2]))
    creases = 0.04 * np.sin(along * 31 + 3 * np.sin(across * 17)) + 0.02 * np.sin(across * 53 + along * 9)
    return np.asarray(colours * (1 + creases)[:, None], np.float32)


def _accented(fabric: Fabric, across: Floats, along: Floats) -> Mask:
    u, v = across / fabric.period + fabric.phase, along / fabric.period + fabric.phase
    mask: Mask
    match fabric.pattern:
        case "hoops":
            mask = v % 1 < 0.5
        case "pinstripes":
            mask = u % 1 < 0.4
        case "checks":
            mask = (u % 1 < 0.5) ^ (v % 1 < 0.5)
        case "dots":
            mask = (u % 1 - 0.5) ** 2 + ((v + 0.5 * (np.floor(u) % 2)) % 1 - 0.5) ** 2 < 0.1
        case "two-tone":
            mask = along < 0.16 + fabric.period
        case "band":
            mask = np.abs(along - 0.2 - fabric.phase * 0.15) < 0.25 * fabric.period + 0.02
        case "sash":
            slope = 1.0 if fabric.phase < 0.5 else -1.0
            mask = np.abs(along - 0.28 - slope * 1.1 * across) < 0.3 * fabric.period + 0.025
        case "camouflage":
            mask = _blots(fabric, across, along) > 0.2
        case "chevron":
            mask = (v + 2 * np.abs(u / 2 % 1 - 0.5)) % 1 < 0.5
        case "side stripe" | "plain":
            mask = np.zeros(len(across), bool)
    return mask


def _blots(fabric: Fabric, x: Floats, y: Floats) -> Floats:
    k, p = 3.2 / fabric.period, 6.28 * fabric.phase
    waves = np.sin(k * x + p) * np.sin(0.8 * k * y - p) + 0.7 * np.sin(0.6 * k * (x + y) + 2 * p)
    return np.asarray(waves + 0.4 * np.sin(1.9 * k * (x - y)), np.float32)


def printed(figure: Print, across: Floats, along: Floats, garment: float) -> Mask:
    """Which points a print covers; `across` is measured from its centre line, `garment` is the garment's length."""
    x, y = across / figure.size, (along - figure.height * garment) / figure.size
    mask: Mask
    match figure.shape:
        case "disc":
            mask = x**2 + y**2 < 1
        case "ring":
            mask = np.abs(np.hypot(x, y) - 0.8) < 0.3
        case "square":
            mask = (np.abs(x) < 0.9) & (np.abs(y) < 0.9)
        case "triangle":
            mask = (np.abs(x) < (y + 1) * 0.55) & (y < 1)
        case "cross":
            mask = ((np.abs(x) < 0.32) & (np.abs(y) < 1)) | ((np.abs(y) < 0.32) & (np.abs(x) < 1))
        case "bars":
            mask = (np.abs(x) < 1.2) & (np.abs(y) < 1) & ((y * 1.25 + 1.25) % 1 < 0.55)
    return mask
