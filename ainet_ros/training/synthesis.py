# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pictures put together from layers: objects cut out of one pair, moving over another.

A picture is (H, W, 4) uint8, RGB and thermal. An affine map is (2, 3) float64 and takes continuous
coordinates, in which pixel i covers i to i + 1, so that boxes and pictures share one system.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ainet_ros.tracker.crop import Box, Window

Image = NDArray[Any]
Affine = NDArray[np.float64]

INSIDE = 128
"""Mask value from which a pixel belongs to the object, 0 to 255."""


@dataclass(frozen=True)
class Layer:
    """A patch (h, w, 4) and its mask (h, w), 0 to 255, laid into the scene by `place`."""

    patch: Image
    mask: Image
    place: Affine

    def corners(self) -> NDArray[np.float64]:
        """(N, 2): the corners of the mask's pixels in the scene, which bound the object."""
        rows, columns = np.nonzero(self.mask >= INSIDE)
        corners = np.concatenate(
            [np.stack([columns + x, rows + y], axis=1) for x in (0, 1) for y in (0, 1)]
        ).astype(np.float64)
        return _mapped(self.place, corners)

    def box(self) -> Box:
        """The tight box of the mask in the scene: x, y, w, h in its pixels."""
        return _bounds(self.corners())


@dataclass(frozen=True)
class Scene:
    """A background (H, W, 4) seen through `camera` (background to scene), and layers on it."""

    background: Image
    camera: Affine
    layers: tuple[Layer, ...] = ()

    def render(self, window: Window, size: int) -> Image:
        """The scene in the window, (size, size, 4), as `crop.extract` would cut it from a frame.

        A window smaller than `size` is drawn at its own resolution and then enlarged: a small
        target is as coarse as a camera would show it.
        """
        drawn = min(window.side, size)
        scale = drawn / window.side
        to_crop = np.array([[scale, 0, -window.x * scale], [0, scale, -window.y * scale]])
        canvas = warp(self.background, compose(to_crop, self.camera), (drawn, drawn))
        for layer in self.layers:
            _draw(canvas, layer, compose(to_crop, layer.place))
        # A camera cuts off what leaves its frame: the padding is drawn after it.
        frame = np.full(self.background.shape[:2], 255, np.uint8)
        canvas[warp(frame, compose(to_crop, self.camera), (drawn, drawn)) < INSIDE] = 0
        if drawn != size:
            canvas = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_LINEAR)
        return canvas

    def box(self, layer: Layer) -> Box:
        """The tight box of what the background's frame leaves of a layer: x, y, w, h in pixels of
        the scene. Raises ValueError where that is nothing.
        """
        height, width = self.background.shape[:2]
        corners = layer.corners()
        from_scene = cv2.invertAffineTransform(self.camera).astype(np.float64, copy=False)
        on_background = _mapped(from_scene, corners)
        inside = ((on_background >= 0) & (on_background <= (width, height))).all(axis=1)
        if not inside.any():
            raise ValueError("the layer lies outside of the frame")
        return _bounds(corners[inside])


def _mapped(place: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) by an affine map."""
    return points @ place[:, :2].T + place[:, 2]


def _bounds(points: NDArray[np.float64]) -> Box:
    """The box x, y, w, h around points (N, 2)."""
    x0, y0 = points.min(axis=0)
    x1, y1 = points.max(axis=0)
    return float(x0), float(y0), float(x1 - x0), float(y1 - y0)


def _draw(canvas: Image, layer: Layer, place: Affine) -> None:
    """Blends a layer into the canvas (H, W, 4), where it lies in it."""
    height, width = layer.mask.shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    placed = _mapped(place, corners)
    x0, y0 = np.maximum(np.floor(placed.min(axis=0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(placed.max(axis=0)).astype(int), canvas.shape[1::-1])
    if x0 >= x1 or y0 >= y1:
        return
    patch, mask = layer.patch, layer.mask
    shrink = float(np.sqrt(abs(np.linalg.det(place[:, :2]))))
    if shrink < 0.67:
        # Averaged, not sampled: else a distant object would be a handful of stray pixels.
        small = max(2, round(width * shrink)), max(2, round(height * shrink))
        patch = cv2.resize(patch, small, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
        place = compose(place, scaling(width / small[0], height / small[1]))
    place = compose(np.array([[1.0, 0, -x0], [0, 1.0, -y0]]), place)
    size = int(x1 - x0), int(y1 - y0)
    region = canvas[y0:y1, x0:x1]
    colors = warp(patch, place, size, border=cv2.BORDER_REPLICATE)
    alpha = warp(mask, place, size)[..., None].astype(np.float32) / 255
    region[:] = (region + (colors.astype(np.float32) - region) * alpha + 0.5).astype(np.uint8)


def warp(
    image: Image, place: Affine, size: tuple[int, int], border: int = cv2.BORDER_CONSTANT
) -> Image:
    """The image drawn by an affine map on a canvas of `size` (width, height), bilinear."""
    # OpenCV's coordinates are those of pixel centres.
    centred = place.copy()
    centred[:, 2] += place[:, :2].sum(axis=1) / 2 - 0.5
    return cv2.warpAffine(image, centred, size, flags=cv2.INTER_LINEAR, borderMode=border)


def compose(outer: Affine, inner: Affine) -> Affine:
    """The map that applies `inner` and then `outer`."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def scaling(x: float, y: float) -> Affine:
    return np.array([[x, 0, 0], [0, y, 0]], np.float64)


def about(
    source: tuple[float, float],
    target: tuple[float, float],
    scale: tuple[float, float],
    degrees: float = 0.0,
    shear: float = 0.0,
) -> Affine:
    """Scales (x, y), shears and turns about the point `source`, which goes to `target`."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[scale[0], shear * scale[1]], [0, scale[1]]])
    return np.hstack([linear, (np.array(target) - linear @ np.array(source))[:, None]])


def rounded_mask(rng: np.random.Generator, height: int, width: int) -> Image:
    """A filled superellipse, (height, width) 0 to 255, from an ellipse to almost the rectangle,
    that touches all four sides.
    """
    power = rng.uniform(2.0, 6.0)
    y = np.abs(np.linspace(-1, 1, height, dtype=np.float32)) ** power
    x = np.abs(np.linspace(-1, 1, width, dtype=np.float32)) ** power
    edge = 1.0 - (y[:, None] + x[None, :])
    # Half of the value at the rim: the box then ends there.
    softness = rng.uniform(0.05, 0.5)
    return (np.clip(0.5 + edge / softness, 0, 1) * 255).astype(np.uint8)


def soften(mask: Image) -> Image:
    """A mask with its edge blurred by about a fortieth of its height; the half value stays."""
    return cv2.GaussianBlur(mask, (0, 0), max(0.4, mask.shape[0] / 80))


def sway(
    rng: np.random.Generator, patch: Image, mask: Image, amount: float
) -> tuple[Image, Image]:
    """Bends an object as a pose does: rows shift along a wave and spread, by up to `amount` of
    its width. The canvas grows so that nothing is cut.
    """
    height, width = mask.shape
    pad = int(np.ceil(amount * width)) + 1
    rows = np.linspace(0, 1, height, dtype=np.float32)
    wave = np.sin(2 * np.pi * (rng.uniform(0.3, 1.2) * rows + rng.uniform()))
    shift = (amount * 0.6 * width * wave).astype(np.float32)
    spread = (1 + rng.uniform(-amount, amount) * np.cos(np.pi * rows)).astype(np.float32)
    columns = np.arange(-pad, width + pad, dtype=np.float32) - (width - 1) / 2
    across = columns[None, :] / spread[:, None] + shift[:, None] + np.float32((width - 1) / 2)
    down = np.repeat(np.arange(height, dtype=np.float32)[:, None], across.shape[1], axis=1)
    return (
        cv2.remap(patch, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        cv2.remap(mask, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),
    )


BLENT = {"thermal": 0.35, "rgb": 0.12}
"""How often a part of an object is as warm, or of the colours, as what is around it."""


def settle(rng: np.random.Generator, patch: Image, mask: Image, surroundings: Image) -> Image:
    """Fits an object's tones to the place it comes into: its RGB towards the light there, its
    thermal to a body warmer (or, at times, colder) than the surroundings (h, w, 4). Of some a
    part blends in, as a jacket keeps warmth in: what stands out is not the whole of a target.
    """
    values = patch.astype(np.float32)
    inside = mask >= INSIDE
    there = surroundings.reshape(-1, 4).mean(axis=0, dtype=np.float64)
    mean = values[inside].mean(axis=0)
    light = float(there[:3].mean() + 8) / float(mean[:3].mean() + 8)
    gain = np.clip(light ** rng.uniform(0.0, 0.9), 0.25, 2.0)
    tint = (there[:3] + 20) / (there[:3].mean() + 20)
    values[..., :3] *= gain * tint ** rng.uniform(0.0, 0.6)
    choice = rng.random()
    if choice > 0.88:
        warmth = mean[3]
    elif choice < 0.75 and there[3] < 170:
        warmth = min(240.0, there[3] + rng.uniform(30, 160))
    else:
        warmth = max(8.0, there[3] - rng.uniform(25, 90))
    # The crops' thermal is equalised; a plain camera shows a body smoother.
    values[..., 3] = (values[..., 3] - mean[3]) * rng.uniform(0.25, 1.0) + warmth
    for part, share in ((slice(3, 4), BLENT["thermal"]), (slice(0, 3), BLENT["rgb"])):
        if rng.random() < share:
            _blend_in(rng, values[..., part], there[part].astype(np.float32))
    result = np.clip(values, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        sigma = float(patch.shape[0] * rng.uniform(0.005, 0.03))
        result[..., 3] = cv2.GaussianBlur(np.ascontiguousarray(result[..., 3]), (0, 0), sigma)
    return result


def _blend_in(rng: np.random.Generator, values: Image, there: Image) -> None:
    """Brings a band across an object (h, w, C) float32, a fifth to two thirds of its height,
    near the tones (C) of the surroundings, but for a little of its texture.
    """
    height = values.shape[0]
    share = rng.uniform(0.2, 0.67)
    start = rng.uniform(0, 1 - share)
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    edge = rng.uniform(0.01, 0.06)
    inside = np.clip((rows - start) / edge, 0, 1) * np.clip((start + share - rows) / edge, 0, 1)
    alpha = (inside * rng.uniform(0.8, 1.0))[:, None, None].astype(np.float32)
    texture = (values - values.mean(axis=(0, 1))) * np.float32(rng.uniform(0.05, 0.4))
    values += (there + np.float32(rng.uniform(-10, 15)) + texture - values) * alpha


def clear(rng: np.random.Generator, picture: Image, box: Box, avoid: Box | None = None) -> None:
    """Takes what is in a box out of a picture (S, S, 4), in place: a piece from beside it, with
    soft edges, covers it and a tenth around it. x, y, w, h in pixels. Nothing is copied from
    the box to avoid.
    """
    size = picture.shape[0]
    x, y, w, h = box
    x0, y0 = max(0, int(x - 0.1 * w)), max(0, int(y - 0.1 * h))
    x1, y1 = min(size, int(x + 1.1 * w) + 1), min(size, int(y + 1.1 * h) + 1)
    width, height = x1 - x0, y1 - y0
    if width < 1 or height < 1:
        return
    places = rng.integers(0, (max(1, size - width), max(1, size - height)), (20, 2))
    # Of those that leave the box out, the nearest: what is there looks like what it hid.
    apart = np.maximum(
        np.abs(places[:, 0] - x0) / width, np.abs(places[:, 1] - y0) / height
    ).round(6)
    shown = picture.max(axis=2) > 0  # else it is padding
    corners = [
        shown[places[:, 1] + down, places[:, 0] + right]
        for down in (0, height - 1)
        for right in (0, width - 1)
    ]
    allowed = (apart >= 1) & np.all(corners, axis=0)
    if avoid is not None:
        left_out = avoid[0] - width, avoid[1] - height
        beyond = avoid[0] + avoid[2], avoid[1] + avoid[3]
        allowed &= ((places < left_out) | (places > beyond)).any(axis=1)
    free = np.flatnonzero(allowed)
    if not len(free):
        picture[y0:y1, x0:x1] = picture.mean(axis=(0, 1)).astype(np.uint8)
        return
    left, top = places[free[apart[free].argmin()]]
    patch = picture[top : top + height, left : left + width].astype(np.float32)
    soft = max(1.0, 0.05 * min(width, height))
    rows, columns = (
        np.minimum(np.arange(n) + 1, n - np.arange(n)) / soft for n in (height, width)
    )
    alpha = np.minimum(1, np.minimum(rows[:, None], columns[None]))[..., None]
    hole = picture[y0:y1, x0:x1]
    hole[:] = (hole + (patch - hole) * alpha + 0.5).astype(np.uint8)


class Translation:
    """Stands in for the modality that a video lacks: one plausible mapping, the same for the
    template and the search region.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._weights = rng.dirichlet([0.7, 0.7, 0.7])
        levels = np.arange(256) / 255
        curve = levels ** np.exp(rng.uniform(-0.8, 0.8))
        if rng.random() < 0.4:
            curve = 1 - curve
        low, high = rng.uniform(0, 70), rng.uniform(130, 255)
        self._curve = (low + (high - low) * curve).astype(np.uint8)
        self._sigma = float(rng.uniform(0.0, 0.012))
        # Colours from black over a tint to white, as far from grey as `strength` says.
        tint = rng.uniform(0.0, 255.0, 3)
        strength = rng.uniform(0.0, 0.6)
        middle = 1 - np.abs(2 * levels - 1)
        colors = levels[:, None] * 255
        self._colors = np.clip(colors + strength * middle[:, None] * (tint - 128), 0, 255).astype(
            np.uint8
        )

    def thermal(self, rgb: Image) -> Image:
        """(S, S) from (S, S, 3)."""
        return self._blur(self._curve[cv2.transform(rgb, self._weights[None]).squeeze()])

    def rgb(self, thermal: Image) -> Image:
        """(S, S, 3) from (S, S)."""
        return self._blur(self._colors[self._curve[thermal]])

    def _blur(self, image: Image) -> Image:
        sigma = self._sigma * image.shape[0]
        return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.3 else image
