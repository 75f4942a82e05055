"""The pose of a figure: walking phase, arms and lean, and the joints that follow from it.

World axes as in raster.py; the figure stands on y = 0 and looks along z. Side -1 is right, +1 is left.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.synth.person import Body
from training.synth.raster import Floats, point

Arm = Literal["swinging", "phone", "pocket", "bent"]


@dataclass(frozen=True, slots=True)
class Pose:
    """A moment of a walk. Angles in radians."""

    phase: float
    stride: float  # swing of the thigh from the vertical
    lean: float
    left: Arm
    right: Arm

    def arm(self, side: int) -> Arm:
        return self.left if side > 0 else self.right


@dataclass(frozen=True, slots=True)
class Limb:
    """Three joints of an arm or leg, from the body outwards, and the way its end points."""

    root: Floats
    middle: Floats
    end: Floats
    tip: Floats


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The joints of a figure, each (3,) metres; limbs by side."""

    pelvis: Floats
    neck: Floats
    skull: Floats  # centre of the head
    arms: dict[int, Limb]
    legs: dict[int, Limb]


def _swing(length: float, angle: float, outward: float = 0.0) -> Floats:
    """A bone hanging down, swung forward by an angle and leaning outward (metres of x)."""
    return point(outward, -length * np.cos(angle), length * np.sin(angle))


def skeleton(body: Body, pose: Pose) -> Skeleton:
    """Joints of a body in a pose, its lower foot on the ground."""
    height = body.height
    pelvis = point(0, 0.50 * height, 0)
    trunk = point(0, np.cos(pose.lean), np.sin(pose.lean))
    neck = pelvis + 0.335 * height * trunk
    skull = neck + (0.095 * height) * trunk + point(0, 0, 0.012)
    legs, arms = {}, {}
    for side in (-1, 1):
        swing = pose.stride * body.stride * side * np.sin(pose.phase)
        lifting = max(0.0, side * np.cos(pose.phase))
        flex = 0.08 + 1.7 * pose.stride * lifting
        hip = pelvis + point(side * 0.05 * height * body.hips, 0, 0)
        knee = hip + _swing(0.235 * height, swing + 0.3 * flex)
        ankle = knee + _swing(0.225 * height, swing - 0.7 * flex)
        pitch = 0.5 * (swing - 0.7 * flex)
        legs[side] = Limb(hip, knee, ankle, point(side * 0.15, np.sin(pitch) - 0.08, np.cos(pitch)))
        shoulder = neck - 0.04 * height * trunk
        shoulder = shoulder + point(side * 0.102 * height * body.shoulders, 0, 0)
        reach, bend, out, inward = _arm_angles(pose.arm(side), -0.8 * swing)
        elbow = shoulder + _swing(0.172 * height, reach, side * out)
        wrist = elbow + _swing(0.15 * height, reach + bend, -side * inward)
        arms[side] = Limb(shoulder, elbow, wrist, wrist - elbow)
    ground = min(leg.end[1] for leg in legs.values()) - 0.042 * height
    lift = point(0, -ground, 0)
    return Skeleton(
        pelvis + lift,
        neck + lift,
        skull + lift,
        {side: _moved(arm, lift) for side, arm in arms.items()},
        {side: _moved(leg, lift) for side, leg in legs.items()},
    )


def _arm_angles(arm: Arm, swing: float) -> tuple[float, float, float, float]:
    """Forward swing of the upper arm, bend of the elbow, metres the elbow is out and the wrist in."""
    match arm:
        case "swinging":
            return swing, 0.22 + 0.4 * max(0.0, swing), 0.05, 0.0
        case "phone":
            return 0.35, 2.3, 0.09, 0.06
        case "pocket":
            return -0.35, 0.75, 0.10, 0.06
        case "bent":
            return 0.15, 1.35, 0.06, 0.08


def _moved(limb: Limb, by: Floats) -> Limb:
    return Limb(limb.root + by, limb.middle + by, limb.end + by, limb.tip)
