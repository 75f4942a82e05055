"""A person in a pose as painted tubes: body and clothes."""

from dataclasses import replace
from functools import partial

import numpy as np

from training.synth.bags import bag_tubes, paint_straps
from training.synth.fabric import cover, paint_solid, printed, solid, weave
from training.synth.head import head_tubes
from training.synth.person import Person
from training.synth.pose import Limb, Pose, skeleton
from training.synth.raster import Coordinates, Floats, Paint, Profile, Tube, point

HEM = {"t-shirt": 0.07, "long sleeves": 0.07, "vest": 0.05, "jacket": 0.06, "coat": 0.38, "hoodie": 0.09}
PADDING = {"t-shirt": 0.006, "long sleeves": 0.008, "vest": 0.0, "jacket": 0.016, "coat": 0.02, "hoodie": 0.018}


def figure(person: Person, pose: Pose) -> list[Tube]:
    """The tubes of a clothed person in a pose, in world axes."""
    pose = _restrict_pose(person, pose)
    bones = skeleton(person.body, pose)
    up = (bones.neck - bones.pelvis) / np.linalg.norm(bones.neck - bones.pelvis)
    tubes = [_torso(person, bones.neck, bones.pelvis, up, pose), *head_tubes(person, bones.neck, bones.skull)]
    tubes += _hips(person, bones.pelvis, pose)
    for side in (-1, 1):
        tubes += _arm(person, bones.arms[side])
        tubes += _leg(person, bones.legs[side], side)
    return tubes + bag_tubes(person, bones, up)


def _restrict_pose(person: Person, pose: Pose) -> Pose:
    """Adapt the pose to clothes and bags: skirts and coats shorten the stride, a handbag keeps its arm down."""
    if "skirt" in person.bottom or person.top == "coat":
        pose = replace(pose, stride=0.6 * pose.stride)
    if person.bag == "handbag":
        pose = replace(pose, left="swinging") if person.bag_side > 0 else replace(pose, right="swinging")
    return pose


def _bone(start: Floats, end: Floats, widths: Profile, padding: float, paint: Paint) -> Tube:
    """A limb segment padded by cloth that begins with a dome, so that the joint above it does not gape when bent."""
    rows = [(part, a + padding, b + padding) for part, a, b in widths]
    _, a, b = rows[0]
    reach = a / float(np.linalg.norm(end - start))
    dome = [(-reach, 0.0, 0.0), (-0.8 * reach, 0.6 * a, 0.6 * b), (-0.4 * reach, 0.92 * a, 0.92 * b)]
    return Tube(start, end, [*dome, *rows], paint)


def _torso(person: Person, neck: Floats, pelvis: Floats, up: Floats, pose: Pose) -> Tube:
    body, hem = person.body, HEM[person.top]
    trunk = float(np.linalg.norm(neck - pelvis))
    length, wide, hips = trunk + hem, body.shoulders, body.hips
    flare = 1.0 + 0.5 * max(0.0, hem - 0.1)
    rows = [
        (0.0, 0.055, 0.05),
        (0.02, 0.1 * wide, 0.07),
        (0.055, 0.165 * wide, 0.09),
        (0.09, 0.175 * wide, 0.1),
        (0.18, 0.172 * wide, 0.115),
        (0.36, 0.148 * (wide + body.belly) / 2, 0.105 * body.belly),
        (trunk, 0.162 * hips, 0.118 * body.belly**0.5),
        (length, 0.172 * hips * flare, (0.125 + (0.06 + 0.35 * max(0.0, hem - 0.1)) * pose.stride) * flare),
    ]
    padding = PADDING[person.top]
    profile = [(along / length, a + padding, b + padding) for along, a, b in rows]
    return Tube(neck, pelvis - hem * up, profile, partial(_paint_torso, person, length))


def _paint_torso(person: Person, length: float, at: Coordinates) -> Floats:
    colours = weave(person.fabric, at.across, at.along)
    front = np.abs(at.angle) < np.pi / 2
    if person.top in {"jacket", "coat"}:
        opening = front & (np.abs(at.across) < 0.03 + 0.05 * np.maximum(0, 1 - at.along / 0.3))
        colours[opening] = weave(person.inner, at.across[opening], at.along[opening])
    if person.top == "hoodie":
        pocket = front & (np.abs(at.across) < 0.13) & (at.part > 0.62) & (at.part < 0.88)
        colours[pocket] *= 0.8
        cover(colours, front & (np.abs(at.across) < 0.008), person.fabric.accent)
    if person.top in {"t-shirt", "vest"}:
        cover(colours, front & (np.hypot(at.across, 1.6 * at.along) < 0.12), person.skin)
    if person.chest:
        cover(colours, front & printed(person.chest, at.across, at.along, length), person.chest.colour)
    if person.back:
        cover(colours, ~front & printed(person.back, at.behind, at.along, length), person.back.colour)
    if person.top == "vest":
        cover(colours, (at.along < 0.07) & (np.abs(np.sin(at.angle)) > 0.8), person.skin)
    paint_straps(person, at, colours)
    return colours


def _hips(person: Person, pelvis: Floats, pose: Pose) -> list[Tube]:
    hips = 0.158 * person.body.hips
    paint = _cloth(person, 0.0)
    if "skirt" not in person.bottom:
        low = pelvis - point(0, 0.1, 0)
        high = pelvis + point(0, 0.06, 0)
        return [
            Tube(
                high, low, [(0, hips * 0.95, 0.11), (0.5, hips, 0.12), (0.9, hips * 0.95, 0.11), (1, 0.02, 0.02)], paint
            )
        ]
    length = 0.36 if person.bottom == "short skirt" else 0.68
    high = pelvis + point(0, 0.1, 0)
    sweep = 0.12 + length * (0.12 + 0.45 * pose.stride)
    profile = [(0.0, hips * 0.9, 0.11), (0.25, hips * 1.06, 0.13), (1.0, hips * (1.1 + 0.35 * length), sweep)]
    return [Tube(high, high - point(0, length, 0), profile, paint)]


def _cloth(person: Person, offset: float, side: int = 0) -> Paint:
    """Legwear `offset` metres below the waist, with a stripe down the outer side of leg `side`."""

    def paint(at: Coordinates) -> Floats:
        colours = weave(person.legwear, at.across, at.along + offset)
        if person.legwear.pattern == "side stripe":
            outer = np.abs(at.angle - side * np.pi / 2) if side else np.abs(np.abs(at.angle) - np.pi / 2)
            cover(colours, outer < 0.45, person.legwear.accent)
        return colours

    return paint


def _leg(person: Person, leg: Limb, side: int) -> list[Tube]:
    limbs = person.body.limbs
    wide = 0.03 if person.bottom == "wide trousers" else 0.0
    trousers = "trousers" in person.bottom
    loose = 0.012 + wide if trousers else 0.0
    shorts = 0.025 if person.bottom == "shorts" else 0.0
    thick, knee = 0.083 * limbs + loose + shorts, 0.056 * limbs + loose + shorts
    thigh: Profile = [
        (0.06, 0, 0),
        (0.12, 0.8 * thick, 0.8 * thick),
        (0.28, thick, 1.06 * thick),
        (1, knee, 1.05 * knee),
    ]
    shin: Profile = [
        (0, 0.054 * limbs, 0.058 * limbs),
        (0.3, 0.054 * limbs, 0.062 * limbs),
        (1, 0.036 * limbs + wide / 2, 0.04 * limbs + wide / 2),
    ]
    covered = person.bottom in {"trousers", "wide trousers", "shorts"}
    upper_paint = (
        _bare_below(person, 0.95 if person.bottom == "shorts" else 2.0, side) if covered else paint_solid(person.skin)
    )
    lower_paint = _paint_shin(person, trousers, side)
    heel = leg.end - 0.055 * leg.tip - point(0, 0.028, 0)
    toe = leg.end + 0.19 * leg.tip - point(0, 0.045, 0)
    foot: Profile = [
        (0, 0, 0),
        (0.06, 0.035, 0.04),
        (0.35, 0.042, 0.055),
        (0.6, 0.047, 0.042),
        (0.92, 0.04, 0.026),
        (1, 0, 0),
    ]
    return [
        Tube(leg.root, leg.middle, thigh, upper_paint),
        _bone(leg.middle, leg.end, shin, loose, lower_paint),
        Tube(heel, toe, foot, partial(_paint_shoe, person)),
    ]


def _bare_below(person: Person, end: float, side: int) -> Paint:
    cloth = _cloth(person, 0.05, side)

    def paint(at: Coordinates) -> Floats:
        colours = cloth(at)
        cover(colours, at.part > end, person.skin)
        return colours

    return paint


def _paint_shin(person: Person, trousers: bool, side: int) -> Paint:
    cloth = _cloth(person, 0.45, side) if trousers else paint_solid(person.skin)

    def paint(at: Coordinates) -> Floats:
        colours = cloth(at)
        if not trousers:
            cover(colours, at.part > 0.72, person.socks)
        if person.boots and person.bottom != "wide trousers":
            cover(colours, at.part > 0.5, person.shoe)
        return colours

    return paint


def _paint_shoe(person: Person, at: Coordinates) -> Floats:
    colours = solid(person.shoe, len(at.angle))
    cover(colours, np.abs(at.angle) > 1.9, person.sole)
    if not person.boots:
        cover(colours, (np.abs(at.angle) < 0.5) & (at.part > 0.45) & (at.part < 0.6), person.sole)
    return colours


def _arm(person: Person, arm: Limb) -> list[Tube]:
    limbs, padding = person.body.limbs, PADDING[person.top]
    upper: Profile = [
        (0, 0.043 * limbs, 0.05 * limbs),
        (0.25, 0.046 * limbs, 0.052 * limbs),
        (1, 0.038 * limbs, 0.04 * limbs),
    ]
    lower: Profile = [
        (0, 0.038 * limbs, 0.04 * limbs),
        (0.3, 0.04 * limbs, 0.042 * limbs),
        (1, 0.027 * limbs, 0.029 * limbs),
    ]
    full = float(np.linalg.norm(arm.middle - arm.root))
    hand = arm.tip / np.linalg.norm(arm.tip)
    palm: Profile = [(0, 0.022, 0.026), (0.4, 0.024, 0.042), (0.8, 0.02, 0.036), (1, 0, 0)]
    return [
        _bone(arm.root, arm.middle, upper, padding * 0.8, _sleeve(person, 0.0, 0.5)),
        _bone(arm.middle, arm.end, lower, padding * 0.7 if person.sleeve > 0.6 else 0.0, _sleeve(person, full, 0.5)),
        Tube(arm.end - 0.01 * hand, arm.end + 0.14 * hand, palm, paint_solid(person.skin)),
    ]


def _sleeve(person: Person, offset: float, share: float) -> Paint:
    """Sleeve fabric on a bone that begins `offset` metres down the arm and is `share` of it; skin below the cuff."""
    plain_arm = person.fabric.pattern in {"sash", "plain"}

    def paint(at: Coordinates) -> Floats:
        colours = (
            solid(person.fabric.base, len(at.angle))
            if plain_arm
            else weave(person.fabric, at.across, at.along + offset)
        )
        way = at.part * share + (share if offset else 0.0)
        cover(colours, way > person.sleeve, person.skin)
        return colours

    return paint
