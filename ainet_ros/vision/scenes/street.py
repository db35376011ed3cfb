# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The backdrop of a scene: sky, houses and ground, painted once in each modality.

A pinhole camera 3.4 m above flat ground, horizon at `HORIZON`; `pixels_per_metre` holds on the
ground line at a row.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 2600, 620  # of the backdrop, pixels
HORIZON = 200
FACADES = 300  # row on which the houses stand
CAMERA_HEIGHT = 3.4  # metres
FOCAL = 700  # pixels
ROAD = (9.2, 19.5)  # metres from the camera

Field = npt.NDArray[np.float32]


class Backdrop(NamedTuple):
    """Pictures of the street without its figures, (HEIGHT, WIDTH[, channels]) uint8.

    Attributes:
        picture: RGB in daylight, and heat as the fourth channel, white is hot.
        glow: light of its own, RGB.
        light: how much of the street lamps' light falls there at night.
    """

    picture: npt.NDArray[np.uint8]
    glow: npt.NDArray[np.uint8]
    light: npt.NDArray[np.uint8]


def pixels_per_metre(row: float) -> float:
    """On the ground at this row of the backdrop."""
    return (row - HORIZON) / CAMERA_HEIGHT


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 4
) -> Field:
    """Multi-octave value noise, 0..1, (height, width); `cell` pixels is the coarsest grain."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1)
        grid = rng.random((int(height / size) + 2, int(width / size) + 2), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low)


def paint(rng: np.random.Generator, lamps: list[tuple[float, float]]) -> Backdrop:
    """Paints a street; `lamps` are the x of the street lamps' heads and the row of their feet."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    heat = np.zeros((HEIGHT, WIDTH), np.float32)
    glow = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    _sky(rng, rgb, heat)
    _skyline(rng, rgb, heat, glow)
    x = -int(rng.integers(100))
    while x < WIDTH:
        wide = int(rng.integers(150, 330))
        _house(rng, rgb, heat, glow, x, wide)
        x += wide + int(rng.choice([0, 0, 0, 60]))
    _ground(rng, rgb, heat)
    rgb *= 0.94 + 0.12 * noise(rng, HEIGHT, WIDTH, 3, 2)[..., None]
    heat += 0.05 * (noise(rng, HEIGHT, WIDTH, 220, 5) - 0.5)
    picture = np.dstack([rgb, heat])
    return Backdrop(_bytes(picture), _bytes(glow), _bytes(_lamp_light(lamps)))


def _bytes(field: Field) -> npt.NDArray[np.uint8]:
    return (np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8)


def _sky(rng: np.random.Generator, rgb: Field, heat: Field) -> None:
    fall = np.linspace(0, 1, FACADES, dtype=np.float32)[:, None, None]
    top, low = np.array([0.42, 0.56, 0.75]), np.array([0.85, 0.84, 0.8])
    clouds = noise(rng, FACADES, WIDTH, 260, 5)[..., None]
    rgb[:FACADES] = top * (1 - fall) + low * fall + 0.25 * np.clip(clouds - 0.5, 0, 1)
    heat[:FACADES] = 0.04 + 0.1 * fall[..., 0] + 0.06 * np.clip(clouds[..., 0] - 0.5, 0, 1)


def _skyline(rng: np.random.Generator, rgb: Field, heat: Field, glow: Field) -> None:
    x = 0
    while x < WIDTH:
        wide, top = int(rng.integers(40, 130)), int(rng.integers(60, 190))
        area = np.s_[top:FACADES, x : x + wide]
        rgb[area] = np.array([0.52, 0.56, 0.62]) * rng.uniform(0.85, 1.1)
        heat[area] = rng.uniform(0.2, 0.27)
        for row in range(top + 8, FACADES, 11):
            for col in range(x + 5, x + wide - 6, 9):
                rgb[row : row + 5, col : col + 5] *= 0.85
                if rng.random() < 0.25:
                    glow[row : row + 5, col : col + 5] = np.array([0.5, 0.42, 0.25])
        x += wide


def _house(
    rng: np.random.Generator, rgb: Field, heat: Field, glow: Field, x: int, wide: int
) -> None:
    storey = int(rng.integers(58, 74))
    top = max(FACADES - storey * int(rng.integers(2, 5)) - 14, 8)
    left, right = max(x, 0), min(x + wide, WIDTH)
    if right <= left:
        return
    palette = [(0.56, 0.3, 0.24), (0.74, 0.62, 0.44), (0.6, 0.6, 0.58), (0.82, 0.79, 0.72),
               (0.4, 0.46, 0.54), (0.5, 0.4, 0.34)]  # fmt: skip
    paint_color = np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.8, 1.05)
    wall = np.s_[top:FACADES, left:right]
    grain = 0.82 + 0.3 * noise(rng, FACADES - top, right - left, 60, 5)[..., None]
    rgb[wall] = paint_color * grain
    if rng.random() < 0.6:  # courses of bricks
        rgb[top:FACADES:6, left:right] *= 0.84
        for course, row in enumerate(range(top, FACADES - 6, 6)):
            rgb[row : row + 6, left + 6 * (course % 2) : right : 12] *= 0.88
    warm = rng.uniform(0.33, 0.42)
    heat[wall] = warm
    glow[wall] = 0
    for side in (slice(left, left + 3), slice(right - 3, right)):
        rgb[top:FACADES, side] *= 0.7
    rgb[top - 6 : top, left:right] = paint_color * 0.55
    heat[top - 6 : top, left:right] = warm - 0.06
    glow[top - 6 : top, left:right] = 0

    pitch = int(rng.integers(34, 48))
    pane = (int(pitch * 0.5), int(storey * 0.52))
    for floor in range((FACADES - top) // storey):
        base = FACADES - floor * storey - 14
        for col in range(x + pitch // 2, x + wide - pitch // 2 - pane[0] // 2, pitch):
            if floor == 0 and rng.random() < 0.3:
                _opening(rng, rgb, heat, glow, col, FACADES - 46, pane[0], 46, door=True)
            else:
                _opening(rng, rgb, heat, glow, col, base - pane[1], pane[0], pane[1], door=False)
    if rng.random() < 0.45:  # a shop sign
        row = FACADES - storey
        sign = np.s_[row : row + 11, left + 8 : max(right - 8, left + 9)]
        ink = rng.uniform(0.1, 0.9, 3)
        rgb[sign] = ink
        heat[sign] = warm + 0.06
        glow[sign] = ink * rng.uniform(0.2, 0.8)


def _opening(
    rng: np.random.Generator,
    rgb: Field,
    heat: Field,
    glow: Field,
    x: int,
    y: int,
    wide: int,
    high: int,
    *,
    door: bool,
) -> None:
    """A window or a door with its frame."""
    if x < 2 or x + wide > WIDTH - 2 or y < 2:
        return
    rgb[y - 2 : y + high + 2, x - 2 : x + wide + 2] = rng.uniform(0.7, 0.85)
    heat[y - 2 : y + high + 2, x - 2 : x + wide + 2] += 0.03
    area = np.s_[y : y + high, x : x + wide]
    if door:
        rgb[area] = rng.uniform(0.1, 0.4, 3)
        heat[area] = 0.42
        return
    fall = np.linspace(0.55, 0.25, high)[:, None, None]
    rgb[area] = np.array([0.62, 0.75, 0.9]) * fall * rng.uniform(0.6, 1.1)
    heat[area] = rng.choice([0.2, 0.24, 0.28, 0.5], p=[0.3, 0.3, 0.25, 0.15])
    if rng.random() < 0.35:
        lamp = np.array([1.0, rng.uniform(0.72, 0.9), rng.uniform(0.4, 0.65)])
        glow[area] = lamp * rng.uniform(0.25, 0.75)
    else:
        glow[area] = 0
    middle = x + wide // 2
    rgb[y : y + high, middle : middle + 2] = 0.75
    glow[y : y + high, middle : middle + 2] = 0


def _ground(rng: np.random.Generator, rgb: Field, heat: Field) -> None:
    """A plan of the ground, 24 pixels a metre, seen in perspective."""
    scale, depth, across = 24, 26, 90
    plan = np.zeros((depth * scale, across * scale, 3), np.float32)
    warm = np.zeros(plan.shape[:2], np.float32)
    stone = 0.5 + 0.16 * noise(rng, depth * scale, across * scale, 40, 5)
    plan[:] = stone[..., None] * np.array([1.0, 0.97, 0.92])
    warm[:] = 0.36 + 0.05 * stone
    joint = scale  # slabs of a metre
    plan[::joint] *= 0.72
    plan[:, ::joint] *= 0.72
    near, far = (round(edge * scale) for edge in ROAD)
    tar = noise(rng, far - near, warm.shape[1], 90, 6)
    plan[near:far] = (0.23 + 0.13 * tar)[..., None] * np.array([1.0, 1.0, 1.04])
    warm[near:far] = 0.42 + 0.08 * tar
    for edge in (near, far):  # kerbs
        plan[edge - 3 : edge + 3] = 0.62
        warm[edge - 3 : edge + 3] = 0.34
    middle = (near + far) // 2
    for start in range(0, warm.shape[1], 6 * scale):
        plan[middle - 2 : middle + 2, start : start + 3 * scale] = 0.85
    crossing = int(rng.integers(20, 60)) * scale
    for bar in range(near + 12, far - 12, scale):
        plan[bar : bar + scale // 2, crossing : crossing + 4 * scale] = 0.82
    rows = np.arange(FACADES, HEIGHT, dtype=np.float32)[:, None]
    cols = np.arange(WIDTH, dtype=np.float32)[None]
    per_metre = (rows - HORIZON) / CAMERA_HEIGHT
    u = ((cols - WIDTH / 2) / per_metre + across / 2) * scale
    v = np.broadcast_to(FOCAL / per_metre * scale, u.shape)
    maps = (np.ascontiguousarray(u, np.float32), np.ascontiguousarray(v, np.float32))
    wrap = cv2.BORDER_REFLECT
    rgb[FACADES:] = cv2.remap(plan, *maps, cv2.INTER_LINEAR, borderMode=wrap)
    heat[FACADES:] = cv2.remap(warm, *maps, cv2.INTER_LINEAR, borderMode=wrap)
    rgb[FACADES : FACADES + 8] *= np.linspace(0.6, 1, 8)[:, None, None]  # shade below the walls


def _lamp_light(lamps: list[tuple[float, float]]) -> Field:
    light = np.zeros((HEIGHT, WIDTH), np.float32)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    cols = np.arange(WIDTH, dtype=np.float32)[None]
    for x, foot in lamps:
        reach = 4 * pixels_per_metre(foot)
        pool = ((cols - x) / reach) ** 2 + ((rows - foot) / (0.35 * reach)) ** 2
        cone = ((cols - x) / (0.8 * reach)) ** 2 + ((rows - foot + 0.9 * reach) / reach) ** 2
        light += 0.55 * np.exp(-pool) + 0.3 * np.exp(-cone)
    return light
