"""Bags, and their straps on the clothes."""

import numpy as np

from training.synth.fabric import cover, shaded, weave
from training.synth.person import Person
from training.synth.pose import Skeleton
from training.synth.raster import Coordinates, Floats, Paint, Profile, Tube, point

BOX: Profile = [(0, 0, 0), (0.03, 0.7, 0.6), (0.1, 1, 1), (0.9, 1, 1), (0.97, 0.8, 0.8), (1, 0, 0)]


def paint_straps(person: Person, at: Coordinates, colours: Floats) -> None:
    """Paint the straps of the person's bag on the torso, in place."""
    strap = shaded(person.bag_fabric.base, 0.8)
    if person.bag == "backpack":
        front = np.abs(at.angle) < np.pi / 2
        cover(colours, front & (np.abs(np.abs(at.across) - 0.1) < 0.022) & (at.along < 0.36), strap)
    if person.bag == "cross-body":
        lateral = np.sin(at.angle) * person.bag_side
        cover(colours, np.abs(lateral - (at.along / 0.27 - 1)) < 0.14, strap)


def bag_tubes(person: Person, bones: Skeleton, up: Floats) -> list[Tube]:
    """The bag a person carries, if any."""
    side = person.bag_side
    match person.bag:
        case "backpack":
            back = np.cross(point(1, 0, 0), up) * -1.0
            top = bones.neck - 0.03 * up - 0.175 * np.asarray(-back, np.float32)
            return [_box(top, top - 0.44 * up, 0.15, 0.09, (1, 0, 0), _paint_bag(person, 2.2))]
        case "cross-body":
            middle = bones.pelvis + point(side * (0.175 * person.body.hips + 0.04), 0.0, 0.02)
            drop = point(0, 0.12, 0)
            return [_box(middle + drop, middle - drop, 0.14, 0.05, (0, 0, -side), _paint_bag(person, 0.0))]
        case "handbag":
            hand = bones.arms[side].end + 0.08 * bones.arms[side].tip / np.linalg.norm(bones.arms[side].tip)
            hand = np.asarray(hand + np.array([side * 0.03, 0, 0]), np.float32)
            down = point(0, -1, 0)
            top = hand + 0.12 * down
            handle: Profile = [(0, 0.03, 0.006), (1, 0.07, 0.006)]
            return [
                Tube(hand, top, handle, _paint_bag(person, 9.0), side=(0, 0, -side)),
                _box(top, top + 0.27 * down, 0.17, 0.06, (0, 0, -side), _paint_bag(person, 0.0)),
            ]
        case None:
            return []


def _box(top: Floats, low: Floats, width: float, depth: float, side: tuple[float, float, float], paint: Paint) -> Tube:
    profile = [(part, a * width, b * depth) for part, a, b in BOX]
    return Tube(top, low, profile, paint, side=side, boxy=True)


def _paint_bag(person: Person, pocket_from: float) -> Paint:
    """Bag fabric with a pocket in the accent colour on the points whose angle exceeds `pocket_from`."""

    def paint(at: Coordinates) -> Floats:
        colours = weave(person.bag_fabric, at.across, at.along)
        cover(colours, (np.abs(at.angle) > pocket_from) & (np.abs(at.part - 0.72) < 0.16), person.bag_fabric.accent)
        cover(colours, np.abs(at.part - 0.3) < 0.025, (0.08, 0.08, 0.08))
        return colours

    return paint
