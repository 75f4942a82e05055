"""Head, hair, hat and scarf."""

from functools import partial

import numpy as np

from training.synth.fabric import cover, paint_solid, shaded, solid
from training.synth.person import Person
from training.synth.raster import Coordinates, Floats, Paint, Profile, Tube, point

SKULL = 0.118  # half the height of a head, metres


def _ball(centre: Floats, half_height: float, width: float, depth: float, paint: Paint) -> Tube:
    """An upright ellipsoid."""
    rows = np.linspace(-1, 1, 9)
    profile = [((y + 1) / 2, width * float(np.sqrt(1 - y * y)), depth * float(np.sqrt(1 - y * y))) for y in rows]
    reach = point(0, half_height, 0)
    return Tube(centre + reach, centre - reach, profile, paint)


def head_tubes(person: Person, neck: Floats, skull: Floats) -> list[Tube]:
    tubes = [
        Tube(
            skull,
            neck - point(0, 0.03, 0),
            [(0, 0.05, 0.052), (1, 0.058, 0.06)],
            paint_solid(person.skin),
        ),
        _ball(skull, SKULL, 0.079, 0.096, partial(_paint_face, person)),
        _ball(skull + point(0, -0.055, 0.022), 0.065, 0.06, 0.07, partial(_paint_chin, person)),
    ]
    if person.scarf:
        low = neck + point(0, -0.05, 0)
        high = neck + point(0, 0.06, 0.01)
        tubes.append(Tube(high, low, [(0, 0.07, 0.07), (0.4, 0.1, 0.1), (1, 0.1, 0.1)], paint_solid(person.scarf)))
    if person.top == "hoodie":
        tubes.append(_ball(neck + point(0, 0.005, -0.075), 0.075, 0.11, 0.07, paint_solid(person.fabric.base)))
    return tubes + _hair(person, skull) + _hat(person, skull)


def _paint_face(person: Person, at: Coordinates) -> Floats:
    colours = solid(person.skin, len(at.angle))
    turned = np.abs(at.angle)
    cover(colours, (np.abs(turned - 0.42) < 0.17) & (np.abs(at.part - 0.46) < 0.04), shaded(person.skin, 0.35))
    cover(colours, (turned < 0.12) & (np.abs(at.part - 0.58) < 0.05), shaded(person.skin, 0.82))
    if person.glasses:
        cover(colours, (turned < 0.85) & (np.abs(at.part - 0.47) < 0.055), (0.06, 0.06, 0.07))
    if person.hair != "bald":
        line = 0.2 + 0.25 * np.clip(turned - 0.6, 0, 0.6) + 0.5 * (turned > 1.5)
        cover(colours, at.part < line, person.hair_colour)
    return colours


def _paint_chin(person: Person, at: Coordinates) -> Floats:
    colours = solid(person.hair_colour if person.beard else person.skin, len(at.angle))
    mouth = (np.abs(at.angle) < 0.4) & (np.abs(at.part - 0.45) < 0.07)
    cover(colours, mouth, (person.skin[0] * 0.72, person.skin[1] * 0.5, person.skin[2] * 0.5))
    return colours


def _hair(person: Person, skull: Floats) -> list[Tube]:
    if person.hair == "bald":
        return []
    paint = partial(_paint_hair, person)
    if person.hair == "afro":
        return [_ball(skull + point(0, 0.05, -0.045), 0.14, 0.145, 0.13, paint)]
    tubes = [_ball(skull + point(0, 0.022, -0.022), SKULL * 0.98, 0.088, 0.095, paint)]
    match person.hair:
        case "bob":
            tubes.append(
                Tube(
                    skull + point(0, 0.06, -0.03),
                    skull + point(0, -0.13, -0.035),
                    [(0, 0.06, 0.06), (0.4, 0.1, 0.085), (1, 0.105, 0.08)],
                    paint,
                )
            )
        case "long":
            tubes.append(
                Tube(
                    skull + point(0, 0.06, -0.03),
                    skull + point(0, -0.4, -0.105),
                    [(0, 0.06, 0.06), (0.3, 0.1, 0.08), (0.9, 0.11, 0.05), (1, 0.09, 0.03)],
                    paint,
                )
            )
        case "bun":
            tubes.append(_ball(skull + point(0, 0.105, -0.09), 0.055, 0.06, 0.055, paint))
        case "ponytail":
            tubes.append(
                Tube(
                    skull + point(0, 0.05, -0.1),
                    skull + point(0, -0.26, -0.17),
                    [(0, 0.03, 0.03), (0.3, 0.05, 0.05), (1, 0.02, 0.02)],
                    paint,
                )
            )
    return tubes


def _paint_hair(person: Person, at: Coordinates) -> Floats:
    strands = 1 + 0.12 * np.sin(at.angle * 19 + at.part * 6)
    return np.asarray(solid(person.hair_colour, len(at.angle)) * strands[:, None], np.float32)


def _hat(person: Person, skull: Floats) -> list[Tube]:
    """The hat on a head, if any."""
    if person.hat is None:
        return []
    colour = person.hat_colour

    def paint(where: Coordinates) -> Floats:
        colours = solid(colour, len(where.angle))
        if person.hat != "cap":
            cover(colours, where.part > 0.75, shaded(colour, 0.55))
        return colours

    low = 0.025 if person.hat == "beanie" else 0.05
    dome: Profile = [(0, 0, 0), (0.06, 0.045, 0.05), (0.25, 0.078, 0.09), (0.6, 0.096, 0.11), (1, 0.099, 0.113)]
    tubes = [Tube(skull + point(0, 0.155, -0.012), skull + point(0, low, -0.012), dome, paint)]
    if person.hat == "cap":
        brim: Profile = [(0, 0.075, 0.008), (0.6, 0.07, 0.008), (0.9, 0.045, 0.008), (1, 0, 0)]
        tubes.append(Tube(skull + point(0, 0.06, 0.07), skull + point(0, 0.035, 0.2), brim, paint))
    if person.hat == "brimmed":
        disc: Profile = [(0, 0.1, 0.11), (0.5, 0.19, 0.2), (1, 0.19, 0.2)]
        tubes.append(Tube(skull + point(0, 0.065, -0.012), skull + point(0, 0.045, -0.012), disc, paint))
    return tubes
