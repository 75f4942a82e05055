"""Draws tubes, of which every figure consists, as dense points with a depth buffer.

A tube runs along a straight axis; its cross-section is an ellipse (or a rounded box) that changes with the way
along. Its surface carries its own coordinates, so a pattern painted on it turns with the body: a print on the chest is
on the chest from every side.

Shapes: N points of a surface. World axes: x to the figure's left, y up, z forward; metres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Profile = Sequence[tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Surface coordinates of points on a tube. Arrays are (N,)."""

    angle: Floats  # radians around the axis: 0 in front, positive to the figure's left, +-pi behind
    along: Floats  # metres from the start of the axis
    part: Floats  # the same, 0 at the start and 1 at the end
    radius: float  # of the tube at its widest, metres

    @property
    def across(self) -> Floats:
        """Metres around the tube from its front line, signed as `angle`, where it is widest."""
        return self.angle * np.float32(self.radius)

    @property
    def behind(self) -> Floats:
        """Metres around the tube from its back line, growing to the figure's right."""
        return np.asarray((self.angle % (2 * np.pi) - np.pi) * self.radius, np.float32)


Paint = Callable[[Coordinates], Floats]


def point(x: float, y: float, z: float) -> Floats:
    """A position or direction in world axes."""
    return np.array([x, y, z], np.float32)


@dataclass(frozen=True, slots=True)
class Tube:
    """A painted tube from `start` to `end`; `profile` rows are (part, half width, half depth)."""

    start: Floats
    end: Floats
    profile: Profile
    paint: Paint
    side: tuple[float, float, float] = (1.0, 0.0, 0.0)  # direction of its width
    boxy: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """The viewpoint of a camera: turn and elevation in radians, distance in metres."""

    turn: float
    elevation: float
    distance: float
    light: Floats  # unit vector towards the light, in view axes
    ambient: float

    def rotation(self) -> Floats:
        """World -> view axes (x right, y up, z towards the camera), a (3, 3) matrix."""
        ct, st = np.cos(self.turn), np.sin(self.turn)
        ce, se = np.cos(self.elevation), np.sin(self.elevation)
        turn = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]], np.float32)
        lift = np.array([[1, 0, 0], [0, ce, -se], [0, se, ce]], np.float32)
        return (lift @ turn).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture plane: view metres -> pixels. `left` and `top` are the corner in metres."""

    left: float
    top: float
    width_m: float
    height_m: float
    width: int
    height: int


PIVOT = np.array([0.0, 0.9, 0.0], np.float32)


def outline(tubes: Sequence[Tube], view: View) -> tuple[float, float, float, float]:
    """The box around a figure in view metres: left, bottom, right, top."""
    rotation = view.rotation()
    corners = []
    for tube in tubes:
        ends = (np.stack([tube.start, tube.end]) - PIVOT) @ rotation.T
        scale = view.distance / (view.distance - ends[:, 2])
        widest = max(max(a, b) for _, a, b in tube.profile)
        centre = ends[:, :2] * scale[:, None]
        corners += [centre - 0.7 * widest, centre + 0.7 * widest]
    points = np.concatenate(corners)
    (left, bottom), (right, top) = points.min(0), points.max(0)
    return float(left), float(bottom), float(right), float(top)


def draw(tubes: Sequence[Tube], view: View, frame: Frame) -> tuple[Floats, Floats]:
    """Draw tubes; returns colour (height, width, 3) in 0..1 and coverage (height, width), 0 or 1."""
    rotation = view.rotation()
    across, down = frame.width / frame.width_m, frame.height / frame.height_m
    colour = np.zeros((frame.height * frame.width, 3), np.float32)
    depth = np.full(frame.height * frame.width, -np.inf, np.float32)
    for tube in tubes:
        surface = _surface(tube, rotation, view.light, max(across, down))
        lens = view.distance / (view.distance - surface.z)
        x = (surface.x * lens - frame.left) * across
        y = (frame.top - surface.y * lens) * down
        inside = (x >= 0) & (x < frame.width) & (y >= 0) & (y < frame.height)
        index = np.where(inside, y.astype(np.int32) * frame.width + x.astype(np.int32), 0)
        nearer = np.flatnonzero(inside & (surface.z > depth[index]))
        nearer = nearer[np.argsort(surface.z[nearer])]  # where points share a pixel the nearest is written last
        index = index[nearer]
        depth[index] = surface.z[nearer]
        shade = view.ambient + (1.0 - view.ambient) * 1.25 * np.clip(surface.lit[nearer], 0, None)
        at = Coordinates(surface.angle[nearer], surface.along[nearer], surface.part[nearer], surface.radius)
        colour[index] = tube.paint(at) * shade[:, None]
    shape = (frame.height, frame.width)
    return colour.reshape(*shape, 3), np.isfinite(depth).astype(np.float32).reshape(shape)


@dataclass(frozen=True, slots=True)
class _Surface:
    """Points (N,) on the visible side of a tube: position, light and surface coordinates."""

    x: Floats
    y: Floats
    z: Floats
    lit: Floats  # cosine between normal and light
    angle: Floats
    along: Floats
    part: Floats
    radius: float


def _surface(tube: Tube, rotation: Floats, light: Floats, scale: float) -> _Surface:
    """The visible points of a tube in view axes, dense enough for `scale` pixels per metre.

    Normals are never formed: in the tube's own orthonormal axes (side, front, down) their products with the
    view direction and the light are sums of three terms.
    """
    axis = tube.end - tube.start
    length = float(np.linalg.norm(axis))
    down = axis / length
    side = point(*tube.side)
    side = side - (side @ down) * down
    side /= np.linalg.norm(side)
    (dx, dy, dz), (sx, sy, sz) = down, side
    front = point(dy * sz - dz * sy, dz * sx - dx * sz, dx * sy - dy * sx)  # np.cross is slow on one vector
    start, down, side, front = (rotation @ vector for vector in (tube.start - PIVOT, down, side, front))

    part, a, b, taper = _rows(tube.profile, length, scale)
    radius = float((a + b).max() / 2)
    columns = max(8, int(2 * np.pi * max(a.max(), b.max()) * scale * (1.4 if tube.boxy else 1.2)) + 2)
    angle = np.linspace(-np.pi, np.pi, columns, endpoint=False, dtype=np.float32)
    sin, cos = np.sin(angle), np.cos(angle)
    normal_sin, normal_cos = sin, cos
    if tube.boxy:
        corner = (sin**4 + cos**4) ** -0.25
        sin, cos = sin * corner, cos * corner
        normal_sin, normal_cos = sin**3, cos**3

    n_side, n_front = normal_sin * b[:, None], normal_cos * a[:, None]
    n_down = -(taper * (a + b) / 2)[:, None]
    norm = np.sqrt(n_side**2 + n_front**2 + n_down**2) + 1e-9
    row, column = np.nonzero(n_side * side[2] + n_front * front[2] + n_down * down[2] > -0.12 * norm)
    lit = (n_side * (side @ light) + n_front * (front @ light) + n_down * (down @ light)) / norm
    along = (part * length)[row]
    to_side, to_front = a[row] * sin[column], b[row] * cos[column]
    x, y, z = (start[i] + along * down[i] + to_side * side[i] + to_front * front[i] for i in range(3))
    return _Surface(x, y, z, lit[row, column], angle[column], along, part[row], radius)


def _rows(profile: Profile, length: float, scale: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Rows of points evenly spaced over a profile's outline: part, half width, half depth and taper, each (rows,)."""
    knots, widths, depths = np.array(profile, np.float64).T
    steps = np.hypot(np.diff(knots) * length, np.hypot(np.diff(widths), np.diff(depths)))
    way = np.concatenate([[0.0], np.cumsum(steps)])
    even = np.linspace(0, way[-1], max(3, int(way[-1] * scale * 1.2) + 2))
    slope = np.diff((widths + depths) / 2) / np.maximum(np.diff(knots) * length, 1e-4)
    part, a, b = (np.interp(even, way, values).astype(np.float32) for values in (knots, widths, depths))
    taper = np.interp(even, (way[1:] + way[:-1]) / 2, np.clip(slope, -4, 4)).astype(np.float32)
    return part, a, b, taper
