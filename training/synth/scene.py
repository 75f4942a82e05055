"""One crop: a person in a pose, the background, passers-by and occluders.

(seed, identity) -> Person    (seed, camera) -> Camera    (seed, identity, camera, index) -> Shot
render(person, camera, shot, H, W) -> the crop
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bundle import ImageArray
from training.synth.backdrop import HEIGHT_M, WIDTH_M, backdrop, obstacle
from training.synth.camera import Camera, expose
from training.synth.figure import figure
from training.synth.person import Person, sample_person
from training.synth.pose import Arm, Pose
from training.synth.raster import Floats, Frame, View, draw, outline, point

PASSERS_BY = 1_000_000  # identities from here on only appear as passers-by
Obstacle = Literal["post", "counter", "railing", "bush"]


@dataclass(frozen=True, slots=True)
class PasserBy:
    """Another person who is partly in the box: distance to the side in metres, and whether in front."""

    identity: int
    turn: float
    aside: float
    in_front: bool
    pose: Pose


@dataclass(frozen=True, slots=True)
class Shot:
    """The parameters that differ between the crops of a person in one camera."""

    seed: int
    pose: Pose
    turn: float  # walking direction: 0 towards the camera, radians
    elevation: float
    aspect: float  # width of the box over its height, before it is resized to the crop
    zoom: float  # height of the box over the height of the figure
    shift: tuple[float, float]  # of the box, as shares of its size
    place: float  # position on the background, 0..1
    obstacle: Obstacle | None
    passer_by: PasserBy | None
    noise: int


def sample_shot(seed: int, identity: int, camera: Camera, index: int) -> Shot:
    """The shot `index` of a person by a camera; the same arguments always give the same shot."""
    track = np.random.default_rng([seed, 4, identity, camera.number])
    heading = camera.walkway + track.choice([0.0, np.pi]) + track.normal(0, 0.3)
    place = track.random()
    rng = np.random.default_rng([seed, 5, identity, camera.number, index])
    careless = rng.random() < 0.12  # a detector's bad boxes
    passer_by = None
    if rng.random() < 0.2:
        passer_by = PasserBy(
            identity=PASSERS_BY + int(rng.integers(1000)),
            turn=float(rng.uniform(-np.pi, np.pi)),
            aside=float(rng.choice([-1, 1]) * rng.uniform(0.38, 0.6)),
            in_front=bool(rng.random() < 0.4),
            pose=_pose(rng),
        )
    kinds: tuple[Obstacle, ...] = ("post", "counter", "railing", "bush")
    return Shot(
        seed=seed,
        pose=_pose(rng),
        turn=float(heading + rng.normal(0, 0.3)),
        elevation=max(0.0, camera.elevation + float(rng.normal(0, 0.05))),
        aspect=float(rng.normal(0.44, 0.03)),
        zoom=float(rng.uniform(0.8, 1.4) if careless else rng.uniform(1.02, 1.16)),
        shift=(float(rng.normal(0, 0.1 if careless else 0.04)), float(rng.normal(0, 0.08 if careless else 0.02))),
        place=float(np.clip(place + rng.normal(0, 0.05), 0, 1)),
        obstacle=kinds[rng.integers(4)] if rng.random() < 0.2 else None,
        passer_by=passer_by,
        noise=int(rng.integers(2**32)),
    )


def _pose(rng: np.random.Generator) -> Pose:
    arms: tuple[Arm, ...] = ("swinging", "phone", "pocket", "bent")
    left, right = (arms[rng.choice(4, p=[0.7, 0.08, 0.12, 0.1])] for _ in range(2))
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(rng.uniform(0.05, 0.5)),
        lean=float(rng.normal(0.05, 0.05)),
        left=left,
        right=right,
    )


def render(person: Person, camera: Camera, shot: Shot, height: int, width: int) -> ImageArray:
    """The crop of a person: (height, width, 3) uint8 RGB, before JPEG."""
    view = View(shot.turn, shot.elevation, camera.distance, point(*camera.light), camera.ambient)
    tubes = figure(person, shot.pose)
    _, bottom, _, top = outline(tubes, view)
    box_height = (top - bottom) * shot.zoom
    box_width = box_height * shot.aspect
    left = -box_width / 2 + shot.shift[0] * box_width
    above = (top + bottom) / 2 + box_height / 2 + shot.shift[1] * box_height
    frame = Frame(left, above, box_width, box_height, 2 * width, 2 * height)

    scene = _cut_backdrop(shot, camera, frame, height, width)
    _cast_shadow(scene, view, frame)
    layers = [draw(tubes, view, frame)]
    if shot.passer_by:
        layers.insert(1 if shot.passer_by.in_front else 0, _draw_passer_by(shot, shot.passer_by, view, frame))
    for colour, coverage in layers:
        scene = _over(scene, _halve(colour), _halve(coverage))
    rng = np.random.default_rng(shot.noise)
    if shot.obstacle:
        scene = _over(scene, *_premultiplied(*obstacle(shot.obstacle, height, width, rng)))
    return expose(scene, camera, rng)


def _draw_passer_by(shot: Shot, other: PasserBy, view: View, frame: Frame) -> tuple[Floats, Floats]:
    theirs = View(other.turn, view.elevation, view.distance, view.light, view.ambient)
    beside = Frame(frame.left - other.aside, frame.top, frame.width_m, frame.height_m, frame.width, frame.height)
    return draw(figure(sample_person(shot.seed, other.identity), other.pose), theirs, beside)


def _cut_backdrop(shot: Shot, camera: Camera, frame: Frame, height: int, width: int) -> Floats:
    """The section of the camera's background behind the box, resampled to the crop."""
    street = backdrop(shot.seed, camera.number, max(24, round(height / 2)))
    rows, columns = street.shape[0] / HEIGHT_M, street.shape[1] / WIDTH_M
    first = (HEIGHT_M - min(HEIGHT_M, frame.height_m + 0.25)) * rows
    y = np.clip(first + np.arange(height) * frame.height_m / height * rows, 0, street.shape[0] - 1).astype(int)
    start = shot.place * (WIDTH_M - frame.width_m) * columns
    x = np.clip(start + np.arange(width) * frame.width_m / width * columns, 0, street.shape[1] - 1).astype(int)
    return np.asarray(street[y[:, None], x[None]], np.float32) / 255


def _cast_shadow(scene: Floats, view: View, frame: Frame) -> None:
    """Darken the ground under the feet, in place."""
    height, width, _ = scene.shape
    ground = (frame.top + 0.88 * np.cos(view.elevation)) / frame.height_m * height
    centre = (-frame.left - 0.1 * view.light[0]) / frame.width_m * width
    y, x = np.mgrid[:height, :width]
    flat = 0.04 + 0.25 * np.sin(view.elevation)
    far = ((x - centre) / (0.32 / frame.width_m * width)) ** 2 + ((y - ground) / (flat / frame.height_m * height)) ** 2
    scene *= (1 - 0.5 * np.exp(-far)).astype(np.float32)[..., None]


def _halve(layer: Floats) -> Floats:
    """Average blocks of 2x2 pixels of (2H, 2W, ...)."""
    blocks = layer.reshape(layer.shape[0] // 2, 2, layer.shape[1] // 2, 2, *layer.shape[2:])
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _premultiplied(colour: Floats, coverage: Floats) -> tuple[Floats, Floats]:
    return colour * coverage[..., None], coverage


def _over(scene: Floats, colour: Floats, coverage: Floats) -> Floats:
    """Lay a layer (colour already multiplied by coverage) over a scene."""
    return scene * (1 - coverage[..., None]) + colour
