"""The appearance of a synthetic person: body, hair, clothes and bag, as a function of (seed, identity).

Clothing colours come from short palettes, so that many people share them. People differ by pattern, cut, print, build
and bag.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

Colour = tuple[float, float, float]
T = TypeVar("T")
Pattern = Literal[
    "plain", "hoops", "pinstripes", "checks", "dots", "two-tone", "band", "sash", "camouflage", "chevron", "side stripe"
]
Shape = Literal["disc", "ring", "square", "triangle", "cross", "bars"]
Top = Literal["t-shirt", "long sleeves", "vest", "jacket", "coat", "hoodie"]
Bottom = Literal["trousers", "wide trousers", "shorts", "short skirt", "long skirt"]
Hair = Literal["bald", "short", "bob", "long", "bun", "ponytail", "afro"]
Hat = Literal["cap", "beanie", "brimmed"]
Bag = Literal["backpack", "cross-body", "handbag"]

SKIN: tuple[Colour, ...] = (
    (0.96, 0.80, 0.69), (0.89, 0.70, 0.56), (0.78, 0.57, 0.42), (0.60, 0.41, 0.29), (0.43, 0.28, 0.20),
    (0.31, 0.20, 0.15),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (0.07, 0.06, 0.06), (0.16, 0.10, 0.07), (0.33, 0.20, 0.11), (0.62, 0.44, 0.22), (0.80, 0.66, 0.42),
    (0.52, 0.52, 0.53), (0.50, 0.20, 0.10),
)  # fmt: skip
CLOTH: tuple[Colour, ...] = (
    (0.11, 0.11, 0.13), (0.42, 0.43, 0.45), (0.90, 0.89, 0.86), (0.13, 0.19, 0.37), (0.66, 0.15, 0.16),
    (0.30, 0.37, 0.22), (0.74, 0.63, 0.47),
)  # fmt: skip
LEGWEAR: tuple[Colour, ...] = (
    (0.12, 0.12, 0.14), (0.24, 0.33, 0.50), (0.38, 0.39, 0.41), (0.60, 0.52, 0.40), (0.15, 0.18, 0.29),
)  # fmt: skip
ACCENT: tuple[Colour, ...] = (
    *CLOTH, (0.92, 0.74, 0.18), (0.20, 0.50, 0.72), (0.85, 0.45, 0.18), (0.20, 0.55, 0.45), (0.82, 0.50, 0.60),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fabric:
    """A cloth: base colour and a pattern in the accent colour with a period in metres."""

    base: Colour
    accent: Colour
    pattern: Pattern = "plain"
    period: float = 0.1
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Print:
    """A figure printed on a garment, centred on the chest or the back; `size` is its half height in metres."""

    shape: Shape
    colour: Colour
    size: float
    height: float  # 0 at the collar, 1 at the hem


@dataclass(frozen=True, slots=True)
class Body:
    """Proportions. `height` in metres; the others multiply the average."""

    height: float
    shoulders: float
    hips: float
    belly: float
    limbs: float
    stride: float


@dataclass(frozen=True, slots=True)
class Person:
    """The attributes of a person that are the same in all cameras."""

    body: Body
    skin: Colour
    hair: Hair
    hair_colour: Colour
    beard: bool
    glasses: bool
    hat: Hat | None
    hat_colour: Colour
    top: Top
    sleeve: float  # covered share of the arm, 0..1
    fabric: Fabric
    inner: Fabric  # visible in an open jacket or coat
    chest: Print | None
    back: Print | None
    bottom: Bottom
    legwear: Fabric
    shoe: Colour
    sole: Colour
    boots: bool
    socks: Colour
    bag: Bag | None
    bag_fabric: Fabric
    bag_side: Literal[-1, 1]
    scarf: Colour | None


def sample_person(seed: int, identity: int) -> Person:
    """The person `identity` of the world `seed`; the same arguments always give the same person."""
    rng = np.random.default_rng([seed, 1, identity])
    tops: tuple[Top, ...] = ("t-shirt", "long sleeves", "vest", "jacket", "coat", "hoodie")
    top = _choose(rng, tops, (5, 4, 1, 4, 2, 3))
    bottoms: tuple[Bottom, ...] = ("trousers", "wide trousers", "shorts", "short skirt", "long skirt")
    bottom = _choose(rng, bottoms, (8, 3, 3, 0, 0) if top == "coat" else (8, 3, 3, 2, 2))
    base = _colour(rng, CLOTH)
    fabric = _fabric(
        rng, base,
        ("plain", "hoops", "pinstripes", "checks", "dots", "two-tone", "band", "sash", "camouflage", "chevron"),
        (4, 4, 2, 3, 2, 3, 2, 2, 2, 2),
    )  # fmt: skip
    printed = fabric.pattern in {"plain", "two-tone"}
    ground = fabric.accent if fabric.pattern == "two-tone" else fabric.base  # the background of a print
    return Person(
        body=Body(
            height=float(rng.uniform(1.52, 1.92)),
            shoulders=float(rng.uniform(0.88, 1.14)),
            hips=float(rng.uniform(0.88, 1.15)),
            belly=float(rng.choice([1.0, 1.05, 1.15, 1.4], p=[0.4, 0.3, 0.2, 0.1])),
            limbs=float(rng.uniform(0.85, 1.2)),
            stride=float(rng.uniform(0.75, 1.25)),
        ),
        skin=_colour(rng, SKIN),
        hair=_choose(rng, ("bald", "short", "bob", "long", "bun", "ponytail", "afro"), (1, 6, 2, 4, 2, 3, 1)),
        hair_colour=_colour(rng, HAIR),
        beard=bool(rng.random() < 0.15),
        glasses=bool(rng.random() < 0.2),
        hat=_choose(rng, ("cap", "beanie", "brimmed"), (4, 3, 2)) if rng.random() < 0.3 else None,
        hat_colour=_colour(rng, ACCENT),
        top=top,
        sleeve=float({"t-shirt": rng.uniform(0.25, 0.5), "vest": 0.0}.get(top, rng.uniform(0.85, 0.98))),
        fabric=fabric,
        inner=_fabric(rng, _colour(rng, CLOTH), ("plain", "hoops", "checks"), (3, 1, 1)),
        chest=_print(rng, ground) if rng.random() < (0.7 if printed else 0.1) else None,
        back=_print(rng, ground) if rng.random() < (0.6 if printed else 0.1) else None,
        bottom=bottom,
        legwear=_fabric(
            rng, _colour(rng, LEGWEAR), ("plain", "side stripe", "checks", "pinstripes", "camouflage", "hoops"),
            (8, 3, 1, 1, 1, 1 if "skirt" in bottom else 0),
        ),
        shoe=_colour(rng, ACCENT if rng.random() < 0.5 else CLOTH[:3]),
        sole=(0.93, 0.93, 0.91) if rng.random() < 0.5 else (0.12, 0.11, 0.10),
        boots=bool(rng.random() < 0.2),
        socks=_colour(rng, CLOTH),
        bag=_choose(rng, ("backpack", "cross-body", "handbag"), (4, 3, 3)) if rng.random() < 0.65 else None,
        bag_fabric=_fabric(rng, _colour(rng, CLOTH), ("plain", "two-tone", "hoops", "checks"), (3, 3, 1, 1)),
        bag_side=1 if rng.random() < 0.5 else -1,
        scarf=_colour(rng, ACCENT) if rng.random() < 0.12 else None,
    )  # fmt: skip


def _choose(rng: np.random.Generator, options: tuple[T, ...], weights: tuple[float, ...]) -> T:
    share = np.array(weights, float) / sum(weights)
    return options[int(rng.choice(len(options), p=share))]


def _colour(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    red, green, blue = np.clip(palette[rng.integers(len(palette))] + rng.normal(0, 0.02, 3), 0.02, 0.98)
    return float(red), float(green), float(blue)


def _contrast(rng: np.random.Generator, ground: Colour) -> Colour:
    """An accent colour with enough contrast to the ground."""
    colour = _colour(rng, ACCENT)
    while sum(abs(a - b) for a, b in zip(ground, colour, strict=True)) < 0.5:
        colour = _colour(rng, ACCENT)
    return colour


def _fabric(
    rng: np.random.Generator, base: Colour, patterns: tuple[Pattern, ...], weights: tuple[float, ...]
) -> Fabric:
    return Fabric(
        base,
        _contrast(rng, base),
        _choose(rng, patterns, weights),
        float(rng.choice([0.08, 0.11, 0.15, 0.2])),
        float(rng.random()),
    )


def _print(rng: np.random.Generator, ground: Colour) -> Print:
    shape: Shape = _choose(rng, ("disc", "ring", "square", "triangle", "cross", "bars"), (1, 1, 1, 1, 1, 1))
    return Print(shape, _contrast(rng, ground), float(rng.uniform(0.06, 0.12)), float(rng.uniform(0.28, 0.5)))
