# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What moves and stands in the street, drawn from polygons in metres.

A figure stands at (0, 0) and faces +x; y points up. It is a list of `Part`, painted in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Color = tuple[float, float, float]


class Part(NamedTuple):
    """A filled polygon.

    Attributes:
        points: (n, 2) metres.
        color: RGB, 0..1, in daylight.
        heat: 0..1, as a thermal camera shows it (white is hot).
        glow: RGB, 0..1, light of its own.
    """

    points: Points
    color: Color
    heat: float
    glow: Color = (0.0, 0.0, 0.0)


Figure = list[Part]
_HALF_TURN = np.linspace(-np.pi / 2, np.pi / 2, 7)


@dataclass(frozen=True)
class Look:
    """How a person looks."""

    coat: Color
    trousers: Color
    skin: Color
    hair: Color
    pack: Color | None
    band: Color | None
    height: float  # metres
    build: float  # width over the usual

    @classmethod
    def random(cls, rng: np.random.Generator) -> Look:
        """A look at random."""

        def cloth(low: float, high: float) -> Color:
            return _color(rng.uniform(low, high) * 3 * rng.dirichlet((5, 5, 5)))

        return cls(
            coat=cloth(0.25, 0.75),
            trousers=cloth(0.12, 0.4),
            skin=_color(np.array([0.9, 0.68, 0.55]) * rng.uniform(0.45, 1.0)),
            hair=_color(np.array([0.25, 0.17, 0.1]) * rng.uniform(0.3, 1.6)),
            pack=cloth(0.2, 0.7) if rng.random() < 0.4 else None,
            band=cloth(0.6, 1.0) if rng.random() < 0.4 else None,
            height=rng.uniform(1.6, 1.88),
            build=rng.uniform(0.9, 1.2),
        )

    def like(self, rng: np.random.Generator) -> Look:
        """One that is taken for this one: the same clothes, a little off."""

        def near(color: Color) -> Color:
            return _color(np.clip(color * rng.uniform(0.85, 1.15, 3), 0, 1))

        return Look(
            near(self.coat),
            near(self.trousers),
            self.skin,
            self.hair,
            self.pack and near(self.pack),
            self.band and near(self.band),
            self.height * rng.uniform(0.95, 1.05),
            self.build * rng.uniform(0.95, 1.05),
        )


def person(look: Look, phase: float, swing: float) -> Figure:
    """A walking person.

    Args:
        look: of the person.
        phase: of the gait, radians; a full turn is two steps.
        swing: of the legs, 0 standing, 1 walking, more for running.
    """
    b = look.build
    parts: Figure = []
    knees, ankles = [], []
    for side in (0.0, np.pi):
        thigh = 0.42 * swing * np.sin(phase + side)
        bend = 0.06 + 0.75 * swing * max(0.0, np.cos(phase + side))
        knee = _polar((0.0, 0.92), 0.45, thigh)
        knees.append(knee)
        ankles.append(_polar(knee, 0.43, thigh - bend))
    ground = min(ankle[1] for ankle in ankles) - 0.07
    lean = 0.06 * swing
    hip, neck = (0.0, 0.92), (lean * 0.7, 1.46)
    shoulder, head = (lean * 0.6, 1.40), (lean + 0.03, 1.63)

    def leg(index: int, shade: float) -> None:
        knee, ankle = knees[index], ankles[index]
        toe = (ankle[0] + 0.17, ankle[1] - 0.03)
        cloth = _scaled(look.trousers, shade)
        parts.append(Part(_capsule(ankle, toe, 0.055 * b, 0.04), (0.1, 0.09, 0.09), 0.56))
        parts.append(Part(_capsule(knee, ankle, 0.075 * b, 0.055 * b), cloth, 0.66))
        parts.append(Part(_capsule(hip, knee, 0.105 * b, 0.08 * b), cloth, 0.72))

    def arm(side: float, shade: float) -> None:
        upper = 0.5 * swing * np.sin(phase + side)
        elbow = _polar(shoulder, 0.29, upper)
        hand = _polar(elbow, 0.27, upper + 0.25 + 0.3 * swing)
        sleeve = _scaled(look.coat, shade)
        parts.append(Part(_disc(hand, 0.05), _scaled(look.skin, shade), 0.88))
        parts.append(Part(_capsule(elbow, hand, 0.055 * b, 0.042), sleeve, 0.7))
        parts.append(Part(_capsule(shoulder, elbow, 0.07 * b, 0.056 * b), sleeve, 0.74))

    arm(0.0, 0.7)
    leg(1, 0.72)
    leg(0, 1.0)
    if look.pack:
        spot = (shoulder[0] - 0.2 * b, 1.2)
        parts.append(Part(_capsule((spot[0], 1.32), (spot[0], 1.05), 0.11, 0.13), look.pack, 0.45))
    parts.append(Part(_capsule(hip, shoulder, 0.14 * b, 0.17 * b), look.coat, 0.78))
    if look.band:
        low, high = (hip[0] * 0.5, 1.12), (shoulder[0] * 0.6, 1.2)
        parts.append(Part(_strip(low, high, 0.155 * b), look.band, 0.74))
    parts.append(Part(_capsule(neck, head, 0.055, 0.055), look.skin, 0.93))
    parts.append(Part(_disc(head, 0.112), look.skin, 0.97))
    crown = [head + 0.118 * _unit(angle) for angle in np.linspace(0.12 * np.pi, 1.25 * np.pi, 12)]
    parts.append(Part(np.array(crown), look.hair, 0.86))
    arm(np.pi, 1.0)
    scale = look.height / 1.745
    return [part._replace(points=(part.points - (0, ground)) * scale) for part in parts]


def car(color: Color, turn: float, *, warm: bool = True, lit: bool = True) -> Figure:
    """A car seen from its side.

    Args:
        color: of the body.
        turn: of its wheels, radians.
        warm: whether the engine ran.
        lit: whether its lamps are on.
    """
    hot = 0.22 if warm else 0.0
    lamps = (1.0, 0.95, 0.8) if lit else (0.0, 0.0, 0.0)
    rear = (0.9, 0.05, 0.03) if lit else (0.0, 0.0, 0.0)
    body = [
        (-2.12, 0.32), (-2.15, 0.75), (-2.0, 0.93), (-1.35, 1.0), (1.0, 0.98), (1.85, 0.82),
        (2.12, 0.66), (2.15, 0.3),
    ]  # fmt: skip
    cabin = [(-1.75, 0.96), (-1.25, 1.42), (-0.9, 1.47), (0.2, 1.46), (0.45, 1.4), (1.15, 0.96)]
    panes = (
        [(-1.5, 0.98), (-1.17, 1.36), (-0.55, 1.39), (-0.55, 0.98)],
        [(-0.45, 0.98), (-0.45, 1.39), (0.18, 1.38), (0.4, 1.32), (0.85, 0.98)],
    )
    glass = (0.16, 0.2, 0.25)
    parts = [
        Part(np.array([(-2.0, 0.12), (2.0, 0.12), (2.1, 0.4), (-2.1, 0.4)]), (0.05,) * 3, 0.4),
        Part(np.array(body), color, 0.4),
        Part(np.array([(0.95, 0.96), (1.85, 0.8), (2.1, 0.64), (1.0, 0.6)]), color, 0.4 + hot),
        Part(np.array(cabin), color, 0.38),
        *(Part(np.array(pane), glass, 0.27) for pane in panes),
        Part(np.array([(-2.1, 0.52), (2.12, 0.46), (2.12, 0.5), (-2.1, 0.56)]),
             _scaled(color, 0.55), 0.41),
        Part(np.array([(1.85, 0.66), (2.1, 0.6), (2.13, 0.7), (1.9, 0.78)]), (0.95,) * 3, 0.45,
             lamps),
        Part(np.array([(-2.14, 0.66), (-1.98, 0.66), (-1.98, 0.82), (-2.1, 0.82)]),
             (0.75, 0.08, 0.05), 0.42, rear),
    ]  # fmt: skip
    for x in (-1.32, 1.35):
        center = (x, 0.32)
        parts.append(Part(_disc(center, 0.33), (0.04, 0.04, 0.045), 0.45 + hot))
        parts.append(Part(_disc(center, 0.2), (0.55, 0.56, 0.58), 0.5 + hot))
        for spoke in range(3):
            along = 0.19 * _unit(spoke * np.pi / 3 - turn)
            parts.append(Part(_capsule(center - along, center + along, 0.025, 0.025),
                              (0.2, 0.2, 0.21), 0.5 + hot))  # fmt: skip
    return parts


def tree(rng: np.random.Generator) -> Figure:
    """A tree of 5 to 6 metres."""
    top = rng.uniform(4.9, 5.7)
    bark = _scaled((0.3, 0.23, 0.17), rng.uniform(0.8, 1.2))
    parts = [Part(_capsule((0.0, 0.0), (0.05, 3.0), 0.2, 0.13), bark, 0.34)]
    for angle in rng.uniform(-0.7, 0.7, 4):
        parts.append(Part(_capsule((0.05, 2.6), _polar((0.05, 2.6), -1.4, angle), 0.08, 0.04),
                          bark, 0.34))  # fmt: skip
    leaf = np.array([0.2, 0.33, 0.12]) * rng.uniform(0.7, 1.3)
    blobs = rng.normal(size=(60, 2)) * (0.62, 0.55) + (0.05, top - 1.4)
    for place in sorted(blobs.tolist(), key=lambda p: p[1]):
        light = 0.6 + 0.5 * (place[1] - top + 3) / 3
        parts.append(Part(_blob(rng, place, rng.uniform(0.2, 0.42)), _color(leaf * light), 0.3))
    return parts


def lamp_post() -> Figure:
    """A street lamp of 5 metres."""
    steel = (0.22, 0.24, 0.25)
    return [
        Part(_capsule((0.0, 0.0), (0.0, 4.9), 0.08, 0.05), steel, 0.32),
        Part(_capsule((0.0, 4.9), (0.9, 5.0), 0.05, 0.04), steel, 0.32),
        Part(_capsule((0.75, 4.96), (1.25, 5.02), 0.07, 0.06), (0.8, 0.8, 0.75), 0.6,
             (1.0, 0.85, 0.55)),
    ]  # fmt: skip


def column(rng: np.random.Generator) -> Figure:
    """An advertising column, 1.3 metres wide, with posters: nobody is seen through it."""
    parts = [
        Part(_box(-0.68, 0.0, 0.68, 0.25), (0.3, 0.3, 0.32), 0.36),
        Part(_box(-0.62, 0.25, 0.62, 2.75), (0.72, 0.7, 0.64), 0.4),
    ]
    for x, width in ((-0.6, 0.5), (-0.08, 0.66)):
        for y in (0.45, 1.6):
            ink = _color(rng.uniform(0.15, 0.9, 3))
            parts.append(Part(_box(x, y, x + width, y + 1.0), ink, 0.42))
            parts.append(Part(_box(x + 0.08, y + 0.55, x + width - 0.08, y + 0.85),
                              _color(rng.uniform(0.3, 1, 3)), 0.42))  # fmt: skip
            for line in range(3):
                parts.append(
                    Part(
                        _box(
                            x + 0.08,
                            y + 0.12 + 0.12 * line,
                            x + width - 0.12,
                            y + 0.17 + 0.12 * line,
                        ),
                        (0.93, 0.92, 0.88),
                        0.42,
                    )
                )
    roof = [(-0.75, 2.75), (0.75, 2.75), (0.5, 3.05), (0.0, 3.2), (-0.5, 3.05)]
    parts.append(Part(np.array(roof), (0.2, 0.3, 0.27), 0.34))
    return parts


def paint_color(rng: np.random.Generator) -> Color:
    """The paint of a car."""
    paints = [(0.75, 0.76, 0.78), (0.12, 0.13, 0.15), (0.6, 0.1, 0.1), (0.15, 0.25, 0.5),
              (0.85, 0.84, 0.8), (0.35, 0.37, 0.4)]  # fmt: skip
    return _scaled(paints[rng.integers(len(paints))], rng.uniform(0.8, 1.1))


def _color(values: npt.NDArray[np.float64]) -> Color:
    red, green, blue = np.clip(values, 0, 1).tolist()
    return red, green, blue


def _scaled(color: Color, gain: float) -> Color:
    return _color(np.array(color) * gain)


def _unit(angle: float) -> Points:
    return np.array([np.cos(angle), np.sin(angle)])


def _polar(start: npt.ArrayLike, length: float, angle: float) -> Points:
    """From `start` down, turned forward by `angle`."""
    return np.asarray(start) + length * np.array([np.sin(angle), -np.cos(angle)])


def _disc(center: npt.ArrayLike, radius: float, sides: int = 16) -> Points:
    angles = np.arange(sides) * (2 * np.pi / sides)
    return np.asarray(center) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _blob(rng: np.random.Generator, center: npt.ArrayLike, radius: float) -> Points:
    angles = np.arange(9) * (2 * np.pi / 9)
    reach = radius * rng.uniform(0.7, 1.3, 9)
    return np.asarray(center) + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _capsule(start: npt.ArrayLike, end: npt.ArrayLike, first: float, last: float) -> Points:
    """The hull of two discs, near enough: half a disc at each end."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    along = np.arctan2(b[1] - a[1], b[0] - a[0]) + _HALF_TURN
    half = np.stack([np.cos(along), np.sin(along)], axis=1)
    return np.concatenate([b + last * half, a - first * half])


def _strip(low: tuple[float, float], high: tuple[float, float], half: float) -> Points:
    return _box(low[0] - half, low[1], high[0] + half, high[1])


def _box(left: float, bottom: float, right: float, top: float) -> Points:
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
