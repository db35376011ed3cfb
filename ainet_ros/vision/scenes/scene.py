# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A recording made by the program: a person walks through a street, followed by a camera pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ainet_ros.vision import boxes as box_files
from ainet_ros.vision.scenes import figures, street
from ainet_ros.vision.scenes.figures import Figure, Look
from ainet_ros.vision.sources import Frame, Source, stamp_of

ATTRIBUTES = {
    "night": "the RGB camera sees next to nothing but lamps",
    "smoke": "smoke veils the RGB image",
    "crossover": "the target is as warm as the street: the thermal camera loses it",
    "occlusion": "the target passes behind trees and advertising columns",
    "lookalikes": "people dressed like the target cross its way",
    "camera_motion": "the cameras shake, roll and swing",
    "scale": "the target comes near and goes far",
    "speed": "the target runs and turns back at a moment's notice",
}
DEFAULT_ATTRIBUTES = ("night", "smoke", "occlusion", "lookalikes")
RECORD = "scene.json"
"""Of a written recording, the arguments that it was made with; written last."""

# One modality at a time fails: each of these has its own part of the recording.
_FAILURES = ("smoke", "night", "crossover")
_BASE_WIDTH, _BASE_HEIGHT = 640, 480  # of the view of the backdrop at a zoom of 1
_SHIFT = 4  # fractional bits of drawn coordinates
_REACH = 3.0  # metres that a figure reaches from its foot point, at most
_AMBIENT = np.array([0.05, 0.06, 0.09], np.float32)
_LAMP = np.array([1.0, 0.82, 0.55], np.float32)

Array = npt.NDArray[Any]


@dataclass
class _Actor:
    """A figure and its way, (frames,) each.

    Attributes:
        shape: the figure by the metres that it has gone.
        x, row: of the foot point in the backdrop, pixels.
        heading: 1 to the right, -1 to the left.
        gone: metres.
        alive: whether it is as warm as a body, and so suffers from crossover.
    """

    shape: Callable[[float], Figure]
    x: Array
    row: Array
    heading: Array
    gone: Array
    alive: bool = False


class Scene(Source):
    """A generated recording with exact boxes; the same for the same arguments.

    The boxes hold the whole target, behind an occluder too, clipped to the image.

    Args:
        seed: of everything that is left to chance.
        frames: length.
        size: width, height of both images in pixels.
        rate: frames a second, which says how far things move between frames.
        attributes: what makes it hard, of `ATTRIBUTES`. Night, smoke and crossover come one
            after the other, and never in the first frames.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        frames: int = 150,
        size: tuple[int, int] = (_BASE_WIDTH, _BASE_HEIGHT),
        rate: float = 10.0,
        attributes: Collection[str] = DEFAULT_ATTRIBUTES,
    ) -> None:
        if unknown := sorted(set(attributes) - ATTRIBUTES.keys()):
            raise ValueError(
                f"no scene attribute {', '.join(unknown)}; there are {', '.join(ATTRIBUTES)}"
            )
        if seed < 0 or frames < 2 or min(size) < 64 or not rate > 0:
            raise ValueError(
                f"a scene needs a seed of at least 0, 2 frames, 64x64 pixels and a positive rate, "
                f"not seed {seed}, {frames} frames, {size[0]}x{size[1]}, rate {rate}"
            )
        self.name = f"scene_{seed}"
        self.rate = rate
        self.attributes = frozenset(attributes)
        self._seed = seed
        self._count = frames
        self._size = size
        self._unit = size[0] / _BASE_WIDTH  # output pixels per pixel of the view
        rng = np.random.default_rng(seed)
        self._failures = self._plan_failures(rng)
        self._target, look = self._plan_target(rng)
        self._views = self._plan_camera(rng)
        lamps = [(float(x), 462.0) for x in range(int(rng.integers(150, 400)), street.WIDTH, 420)]
        self._actors = [
            self._target,
            *self._plan_walkers(rng, look),
            *self._plan_cars(rng),
            *self._plan_furniture(rng, lamps),
        ]
        self._lamp_heads = [(x + street.pixels_per_metre(row), row) for x, row in lamps]
        height, width = size[1], size[0]
        self._grain = rng.standard_normal((height + 64, width + 64, 3)).astype(np.float32)
        self._columns = rng.standard_normal((1, width)).astype(np.float32)
        self._cloth = street.noise(rng, height, width, 12, 3)
        plumes = [street.noise(rng, 480, 700, cell, 5) for cell in (300, 150)]
        self._plumes = [np.hstack([plume, plume[:, ::-1]]) for plume in plumes]  # without a seam
        self.record: dict[str, Any] = {
            "seed": seed,
            "frames": frames,
            "size": list(size),
            "rate": rate,
            "attributes": sorted(self.attributes),
        }
        """The arguments."""
        self.boxes: box_files.Boxes = np.array([self._box(index) for index in range(frames)])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            rgb, thermal = self._render(index)
            yield Frame(rgb, thermal, stamp_of(index, self.rate), f"{index:06d}")

    def write(
        self, folder: str | PathLike[str], on_frame: Callable[[], object] | None = None
    ) -> None:
        """Writes the recording in LasHeR's layout, visible/, infrared/ and the boxes, and
        `RECORD`.

        Args:
            folder: is made; must not hold a recording.
            on_frame: is called after each frame.

        Raises:
            OSError: the folder is taken or cannot be written.
        """
        root = Path(folder)
        for name in ("visible", "infrared"):
            (root / name).mkdir(parents=True)
        for index, frame in enumerate(self):
            images = {
                f"visible/v{index:06d}.jpg": frame.rgb[..., ::-1],
                f"infrared/i{index:06d}.jpg": frame.thermal,
            }
            for name, image in images.items():
                _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
                (root / name).write_bytes(data.tobytes())
            if on_frame:
                on_frame()
        for name in ("visible.txt", "infrared.txt", "init.txt"):
            box_files.write(root / name, self.boxes)
        (root / RECORD).write_text(json.dumps(self.record) + "\n")

    # What happens, and when.

    def _plan_failures(self, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
        names = [name for name in _FAILURES if name in self.attributes]
        slot = 0.82 / max(len(names), 1)
        return {
            str(name): (0.16 + slot * place, 0.16 + slot * (place + 0.8))
            for place, name in enumerate(rng.permutation(names) if names else [])
        }

    def _strength(self, name: str, index: int) -> float:
        """How much of a failure there is, 0..1: it comes and goes softly."""
        if name not in self._failures:
            return 0.0
        begin, end = self._failures[name]
        place = (index / (self._count - 1) - begin) / (end - begin)
        edge = min(place, 1 - place) / 0.22
        edge = min(max(edge, 0.0), 1.0)
        return edge * edge * (3 - 2 * edge)

    def _plan_target(self, rng: np.random.Generator) -> tuple[_Actor, Look]:
        count, look = self._count, Look.random(rng)
        fast = "speed" in self.attributes
        pace = rng.uniform(3.2, 4.2) if fast else rng.uniform(1.1, 1.4)  # metres a second
        place = np.arange(count) / count
        row = np.full(count, rng.uniform(440, 485))
        if "scale" in self.attributes:
            row = 455 + 88 * np.sin(2 * np.pi * (place * rng.uniform(0.9, 1.4) + rng.random()))
        x, heading = np.empty(count), np.empty(count)
        margin = 0.16 * street.WIDTH
        way = rng.choice([-1.0, 1.0])
        at = street.WIDTH / 2 - way * (street.WIDTH / 2 - margin)
        for index in range(count):
            turns = fast and rng.random() < 0.6 / self.rate
            if not margin <= at <= street.WIDTH - margin:
                way = np.sign(street.WIDTH / 2 - at)
            elif turns:
                way = -way
            at += way * pace / self.rate * street.pixels_per_metre(row[index])
            x[index], heading[index] = at, way
        gone = np.arange(count) * pace / self.rate
        swing = 1.35 if fast else 1.0
        return _Actor(_walk(look, swing, rng.random()), x, row, heading, gone, True), look

    def _plan_camera(self, rng: np.random.Generator) -> Array:
        """(frames, 2, 3) affine maps from the backdrop to the image."""
        time = np.arange(self._count) / self.rate
        target = self._target
        body = 1.8 * np.array([street.pixels_per_metre(row) for row in target.row])
        moving = "camera_motion" in self.attributes

        def wander(size: float, *periods: float) -> Array:
            waves = [np.sin(2 * np.pi * (time / p + rng.random())) for p in periods]
            return size * np.mean(waves, axis=0)

        sway = 110.0 if moving else 45.0
        shake = 6.0 if moving else 0.6
        x = _smooth(target.x, 0.15) + wander(sway, 9.0, 5.3) + wander(shake, 0.43, 0.31)
        y = target.row - 0.75 * body + wander(sway / 4, 7.0, 4.1) + wander(shake, 0.37, 0.53)
        zoom = 1.06 + wander(0.04, 8.0, 13.0)
        roll = wander(0.05 if moving else 0.006, 3.1, 1.7)
        reach = np.array([0.3 * _BASE_WIDTH, 0.44 * _BASE_HEIGHT])[:, None] / zoom
        x = np.clip(x, target.x - reach[0], target.x + reach[0])
        y = np.clip(y, target.row - reach[1], target.row - body + reach[1])
        scale = zoom * self._unit
        cos, sin = scale * np.cos(roll), scale * np.sin(roll)
        dx = self._size[0] / 2 - cos * x + sin * y
        dy = self._size[1] / 2 - sin * x - cos * y
        return np.stack(
            [np.stack([cos, -sin, dx], axis=1), np.stack([sin, cos, dy], axis=1)], axis=1
        )

    def _plan_walkers(self, rng: np.random.Generator, look: Look) -> list[_Actor]:
        target = self._target
        walkers = []
        for earliest in (0.1, 0.4, 0.75):  # these meet the target
            at = int((earliest + rng.uniform(0, 0.2)) * (self._count - 1))
            same = "lookalikes" in self.attributes
            row = target.row[at] + rng.choice([-1, 1]) * rng.uniform(6, 14) if same else 395.0
            shape = _walk(look.like(rng) if same else Look.random(rng), 1.0, rng.random())
            speed = -target.heading[at] * rng.uniform(0.9, 1.5)
            walkers.append(self._moving(shape, row, target.x[at], at, speed))
        for _ in range(6):  # on the far pavement
            shape = _walk(Look.random(rng), 1.0, rng.random())
            x, row = rng.uniform(0, street.WIDTH), rng.uniform(304, 316)
            speed = rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 1.5)
            walkers.append(self._moving(shape, row, x, rng.uniform(0, self._count), speed))
        for walker in walkers:
            walker.alive = True
        return walkers

    def _plan_cars(self, rng: np.random.Generator) -> list[_Actor]:
        cars = []
        for row, way in ((352.0, -1.0), (392.0, 1.0)):
            at = rng.uniform(0.1, 0.9) * (self._count - 1)
            shape, speed = _drive(figures.paint_color(rng)), way * rng.uniform(4, 7)
            cars.append(self._moving(shape, row, self._target.x[int(at)], at, speed))
        for place in np.arange(rng.uniform(0, 300), street.WIDTH, 340):
            if rng.random() < 0.6:
                warm = bool(rng.random() < 0.3)
                figure = figures.car(figures.paint_color(rng), 0.0, warm=warm, lit=False)
                cars.append(self._standing(figure, 328.0, place))
        return cars

    def _plan_furniture(
        self, rng: np.random.Generator, lamps: list[tuple[float, float]]
    ) -> list[_Actor]:
        target = self._target
        things = [
            self._standing(figures.tree(rng), 317.0, place)
            for place in np.arange(rng.uniform(100, 300), street.WIDTH, 380)
        ]
        things.extend(self._standing(figures.lamp_post(), row, x) for x, row in lamps)
        if "occlusion" in self.attributes:
            for share, kind in zip((0.11, 0.53, 0.94), rng.permutation(3), strict=True):
                at = int(share * (self._count - 1))
                figure = figures.tree(rng) if kind == 0 else figures.column(rng)
                if abs(target.x[at] - target.x[0]) > 130:  # it begins in full view
                    things.append(self._standing(figure, target.row[at] + 16, target.x[at]))
        return things

    def _moving(
        self, shape: Callable[[float], Figure], row: float, x: float, at: float, speed: float
    ) -> _Actor:
        """At `x` in frame `at`, with a speed in metres a second, to the right where positive."""
        gone = (np.arange(self._count) - at) * speed / self.rate
        track = x + gone * street.pixels_per_metre(row)
        heading = np.full(self._count, np.sign(speed))
        return _Actor(shape, track, np.full(self._count, row), heading, np.abs(gone))

    def _standing(self, figure: Figure, row: float, x: float) -> _Actor:
        return self._moving(lambda _: figure, row, x, 0.0, 0.0)

    # How it looks.

    @cached_property
    def _backdrop(self) -> street.Backdrop:
        return street.paint(np.random.default_rng((self._seed, self._count)), self._lamp_heads)

    def _foot(self, actor: _Actor, index: int) -> tuple[Array, float]:
        """The affine map (2, 3) from the figure's metres to pixels, and pixels per metre."""
        row = actor.row[index]
        scale = street.pixels_per_metre(row)
        view = self._views[index]
        way = actor.heading[index] or 1.0
        place = np.array([[way * scale, 0.0, actor.x[index]], [0.0, -scale, row], [0.0, 0.0, 1.0]])
        return view @ place, scale * float(np.hypot(*view[:, 0]))

    def _box(self, index: int) -> Array:
        affine, _ = self._foot(self._target, index)
        figure = self._target.shape(self._target.gone[index])
        points = _mapped(np.concatenate([part.points for part in figure]), affine)
        # Pixel centres are whole numbers when drawn; a box counts from the pixels' corners.
        low = np.clip(points.min(0) + 0.5, 0, self._size)
        high = np.clip(points.max(0) + 0.5, 0, self._size)
        return np.concatenate([low, high - low])

    def _render(self, index: int) -> tuple[Array, Array]:
        night, smoke, crossover = (
            self._strength(name, index) for name in ("night", "smoke", "crossover")
        )
        rng = np.random.default_rng((self._seed, index))
        picture = self._see(self._backdrop.picture, index)
        glow = self._see(self._backdrop.glow, index) if night else None
        for actor in sorted(self._actors, key=lambda actor: actor.row[index]):
            self._draw(picture, glow, actor, index, crossover if actor.alive else 0.0)
        rgb = np.multiply(picture[..., :3], 1 / 255, dtype=np.float32)
        heat = np.multiply(picture[..., 3], 1 / 255, dtype=np.float32)
        if smoke:
            self._add_smoke(rgb, heat, smoke, index)
        if glow is not None:
            self._darken(rgb, glow, night, index)
        top, left = rng.integers(0, 64, 2)
        height, width = heat.shape
        grain = self._grain[top : top + height, left : left + width]
        rgb += grain * (0.008 + 0.028 * night)
        heat = cv2.GaussianBlur(heat, (0, 0), 0.8 * max(self._unit, 0.5))
        heat = 1.25 * heat - 0.12  # the camera's own gain
        heat += 0.012 * grain[..., 1][::-1] + 0.006 * self._columns
        return _bytes(rgb), _bytes(heat)

    def _see(self, picture: Array, index: int) -> Array:
        return cv2.warpAffine(
            picture,
            self._views[index],
            self._size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )

    def _draw(
        self, picture: Array, glow: Array | None, actor: _Actor, index: int, crossover: float
    ) -> None:
        """Paints an actor into the picture (RGB and heat) and over the glow behind it."""
        affine, scale = self._foot(actor, index)
        if not -_REACH * scale < affine[0, 2] < self._size[0] + _REACH * scale:
            return
        figure = actor.shape(actor.gone[index])
        points = _mapped(np.concatenate([part.points for part in figure]), affine)
        left, top = np.maximum(np.floor(points.min(0)).astype(int) - 3, 0)
        right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 4, self._size)
        if left >= right or top >= bottom:
            return
        self._shade_ground(picture, points, scale)
        area = np.s_[top:bottom, left:right]
        painted = picture[area].copy()
        shining = None if glow is None else glow[area].copy()
        mask = np.zeros(painted.shape[:2], np.uint8)
        corners = np.rint((points - (left, top)) * (1 << _SHIFT)).astype(np.int32)
        ends = np.cumsum([len(part.points) for part in figure])
        for part, outline in zip(figure, np.split(corners, ends[:-1]), strict=True):
            tint = [255 * value for value in (*part.color, part.heat)]
            cv2.fillPoly(painted, [outline], tint, cv2.LINE_AA, _SHIFT)
            cv2.fillPoly(mask, [outline], [255], cv2.LINE_AA, _SHIFT)
            if shining is not None:
                tint = [255 * value for value in part.glow]
                cv2.fillPoly(shining, [outline], tint, cv2.LINE_AA, _SHIFT)
        # Round bodies are darker, and cooler, towards their edges.
        depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3)
        edge = 1 - np.minimum(depth / max(0.09 * scale, 1), 1)
        cloth = self._cloth[: bottom - top, : right - left]
        shade = 1 - mask * (1 / 255) * (0.25 * edge + 0.2 * cloth - 0.07)
        shaded = painted * shade[..., None]
        if crossover:
            shaded[..., 3] += 0.94 * crossover * (picture[area][..., 3] - shaded[..., 3])
        np.clip(shaded, 0, 255, out=shaded)
        picture[area] = shaded
        if glow is not None and shining is not None:
            glow[area] = shining

    def _shade_ground(self, picture: Array, points: Array, scale: float) -> None:
        """The soft shadow at the feet."""
        middle, foot = (points[:, 0].min() + points[:, 0].max()) / 2, points[:, 1].max()
        half = min((points[:, 0].max() - points[:, 0].min()) / 2 + 0.1 * scale, 2.4 * scale)
        high = 0.14 * scale
        left, top = int(middle - half - high), int(foot - 2 * high)
        right, bottom = int(middle + half + high) + 1, int(foot + 2 * high) + 1
        left, top = max(left, 0), max(top, 0)
        area = picture[top : max(bottom, 0), left : max(right, 0), :3]
        if not area.size:
            return
        cols = (np.arange(area.shape[1]) + left - middle) / half
        rows = (np.arange(area.shape[0]) + top - foot) / high
        dark = 0.45 * np.exp(-2.0 * (cols[None] ** 2 + rows[:, None] ** 2))
        area[:] = area * (1 - dark[..., None])

    def _add_smoke(self, rgb: Array, heat: Array, strength: float, index: int) -> None:
        """Mixes in two layers of drifting noise, in place. Thermal radiation passes it."""
        height, width = heat.shape
        density = np.zeros((height, width), np.float32)
        for plume, drift in zip(self._plumes, (26.0, 41.0), strict=True):
            at = int(index * drift * 10 / self.rate)
            piece = np.roll(plume, -at, axis=1)[:, :_BASE_WIDTH]
            density += cv2.resize(piece, (width, height)) / 2
        veil = np.clip(strength * (0.97 + 1.5 * (density - 0.5)), 0, 0.97)[..., None]
        color = (0.6 + 0.3 * (density - 0.5))[..., None] * np.array([1.0, 0.99, 0.97], np.float32)
        rgb += veil * (color - rgb)
        heat += 0.08 * veil[..., 0] * (0.35 - heat)

    def _darken(self, rgb: Array, glow: Array, strength: float, index: int) -> None:
        """Turns day into night, in place."""
        light = self._see(self._backdrop.light, index).astype(np.float32) / 255
        gain = _AMBIENT + 0.5 * light[..., None] * _LAMP
        rgb *= 1 - strength + strength * gain
        height, width = light.shape
        shine = glow.astype(np.float32) / 255
        small = cv2.resize(shine, (max(width // 8, 1), max(height // 8, 1)),
                           interpolation=cv2.INTER_AREA)  # fmt: skip
        bloom = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.5), (width, height))
        rgb += strength * (0.7 * shine + 0.9 * bloom)


def _mapped(points: Array, affine: Array) -> Array:
    return points @ affine[:, :2].T + affine[:, 2]


def _walk(look: Look, swing: float, start: float) -> Callable[[float], Figure]:
    stride = 1.45 * swing  # metres of two steps
    return lambda gone: figures.person(look, 2 * np.pi * (gone / stride + start), swing)


def _drive(paint: figures.Color) -> Callable[[float], Figure]:
    return lambda gone: figures.car(paint, gone / 0.33)


def _smooth(values: Array, weight: float) -> Array:
    smooth = np.empty_like(values)
    state = values[0]
    for index, value in enumerate(values):
        state += weight * (value - state)
        smooth[index] = state
    return smooth


def _bytes(image: Array) -> Array:
    return cv2.convertScaleAbs(np.maximum(image, 0), alpha=255)
