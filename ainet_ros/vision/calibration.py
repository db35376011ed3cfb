# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The homography between two cameras, from what both of them show.

A warm thing and a lit thing look alike in the directions of their outlines only, not in which side
is brighter. So images become maps of their edges' directions, with the angle doubled, so that both
signs are one, and as strong in dark places as in bright ones. The correlation of the maps, summed
over all pairs of images, gives first the scale and shift of the whole thermal image and then, from
coarse to fine, where each tile of it lies; a homography is fitted to the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .registration import Calibration

Image = npt.NDArray[Any]
Matrix = npt.NDArray[Any]
SEARCH_WIDTH = 96
"""Pixels, of the search over scale and shift."""
SCALES = np.geomspace(0.5, 2.0, 33)
"""Of the thermal image, where 1 is resized to the RGB image's width."""
LEVELS = ((160, 12), (320, 12), (640, 8), (640, 6))
"""From coarse to fine: width of the RGB image, and how far tiles are looked for, pixels."""
TILES = 5
"""So many tiles go into the width, side by side; each overlaps its neighbours by half."""
LEAST_CORRELATION = 0.1
"""Of a tile that counts."""
NEAR = 0.012
"""Tiles and points agree with a homography within this part of the RGB image's width."""
LONGEST = 4
"""An image that is compared is no higher than so many times its width, nor so wide that it has no
room for `LEAST_TILES`, as from about 2.2:1."""
LEAST_TILES = 8
LEAST_SHARE = 0.4
"""Of the tiles, and of the points, that must agree."""


@dataclass(frozen=True)
class Found:
    """A calibration, and how good it is.

    Attributes:
        error: root of the mean square distance of the `used` points, or middles of tiles, from
            where it maps them, pixels of the RGB image.
        used, given: points or tiles that agree with it, and all that were compared.
    """

    calibration: Calibration
    error: float
    used: int
    given: int

    @property
    def shift(self) -> float:
        """Mean distance, pixels of the RGB image, of the thermal pixels from where they would be
        if both cameras had the same view."""
        (width, height), rgb_size = self.calibration.thermal_size, self.calibration.rgb_size
        x, y = np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9))
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        same = points * np.divide(rgb_size, (width, height))
        moved = project(self.calibration.homography, points)
        return float(np.linalg.norm(moved - same, axis=1).mean())


def from_points(
    rgb: npt.ArrayLike,
    thermal: npt.ArrayLike,
    rgb_size: tuple[int, int],
    thermal_size: tuple[int, int],
) -> Found:
    """Of places that somebody has seen in both images.

    Args:
        rgb, thermal: (N, 2), N at least 4: x, y of the same places in pixels of either image.
        rgb_size, thermal_size: width, height.

    Raises:
        ValueError: they are too few, or no homography maps them.
    """
    to, of = (np.asarray(points, np.float64) for points in (rgb, thermal))
    if len(to) < 4:
        raise ValueError(f"a homography needs 4 points that both cameras see, not {len(to)}")
    homography, used, error = _fit(of, to, rgb_size[0])
    if homography is None or used < max(4, LEAST_SHARE * len(to)):
        raise ValueError(
            f"{used} of the {len(to)} points fit together: are they in the order rgb x, rgb y, "
            "thermal x, thermal y, and not on one line?"
        )
    return Found(Calibration(homography, rgb_size, thermal_size), error, used, len(to))


def from_pairs(pairs: Sequence[tuple[Image, Image]]) -> Found:
    """Of images that both cameras took at the same time.

    Args:
        pairs: RGB (H, W, 3) and thermal (h, w) or (h, w, 3), uint8; all of the same sizes. The
            more they differ the better.

    Raises:
        ValueError: there is none, their sizes differ, or they do not agree; the message says what
            to do.
    """
    if not pairs:
        raise ValueError("there is no pair of images to calibrate from")
    sizes = {(rgb.shape[1::-1], thermal.shape[1::-1]) for rgb, thermal in pairs}
    if len(sizes) > 1:
        raise ValueError("the images change their size: calibrate from a recording of one size")
    ((rgb_size, thermal_size),) = sizes
    for size in (rgb_size, thermal_size):
        if not _has_room(size):
            raise ValueError(
                f"an image of {size[0]}x{size[1]} is too long and narrow to be compared: crop it"
            )
    homography = _search(pairs)
    for width, reach in LEVELS:
        of, to = _tile_matches(pairs, homography, width, reach)
        step, used, error = _fit(of, to, rgb_size[0])
        if step is None or used < max(LEAST_TILES, LEAST_SHARE * len(of)):
            raise ValueError(
                f"{used} of {len(of)} parts of the thermal image agree on where it lies: take a "
                "recording that shows edges in both cameras (buildings, trees, people), or give "
                "points that both of them see"
            )
        homography = step @ homography
    calibration = Calibration(homography / homography[2, 2], rgb_size, thermal_size)
    return Found(calibration, error, used, len(of))


def misfit(rgb: Image, thermal: Image) -> float | None:
    """How far a thermal image, in RGB geometry, is off: the mean distance of its parts from where
    their edges are in the RGB image, as a share of the width. None where the images do not tell,
    as where it is more than `LEVELS` looks for at first, or are too long and narrow.
    """
    height, width = rgb.shape[:2]
    if not _has_room((width, height)):
        return None
    of, to = _tile_matches([(rgb, thermal)], np.eye(3), *LEVELS[0])
    _, used, _ = _fit(of, to, width)
    if used < max(LEAST_TILES, LEAST_SHARE * len(of)):
        return None
    return float(np.linalg.norm(to - of, axis=1).mean()) / width


def _fit(of: Matrix, to: Matrix, rgb_width: int) -> tuple[Matrix | None, int, float]:
    """The homography that most points agree with, how many do, and their error in pixels."""
    if len(of) < 4:
        return None, 0, 0.0
    homography: Any
    homography, inliers = cv2.findHomography(of, to, cv2.RANSAC, NEAR * rgb_width)
    if homography is None:
        return None, 0, 0.0
    chosen = inliers.ravel().astype(bool)
    distance = np.linalg.norm(project(homography, of[chosen]) - to[chosen], axis=1)
    return homography, int(chosen.sum()), float(np.sqrt(np.mean(distance**2)))


def project(homography: Matrix, points: npt.ArrayLike) -> Matrix:
    """Points (N, 2) mapped by a (3, 3) homography."""
    mapped: Matrix = cv2.perspectiveTransform(
        np.asarray(points, np.float64).reshape(-1, 1, 2), homography
    ).reshape(-1, 2)
    return mapped


def picture(rgb: Image, warped: Image) -> Image:
    """Shows how well a thermal image, in RGB geometry, fits: the RGB image in grey, the edges of
    both in colours, green for RGB, magenta for thermal, white where they meet.

    Returns uint8 (H, W, 3) in RGB order.
    """
    canvas = np.repeat((_grey(rgb) // 2)[..., None], 3, axis=2).astype(np.float32)
    width = rgb.shape[1]
    for image, color in ((rgb, (0, 255, 0)), (warped, (255, 0, 255))):
        strength = np.clip(np.linalg.norm(directions(image, width), axis=2) / 4, 0, 1)[..., None]
        canvas += strength * np.array(color, np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def directions(image: Image, width: int) -> npt.NDArray[np.float32]:
    """The edges of an image shrunk to `width`: (height, width, 2), (cos 2a, sin 2a) of the angle a
    of each pixel's gradient, times how strong it is beside its surroundings.
    """
    size = _shrunk(image.shape[1::-1], width)
    small: Any = cv2.resize(_grey(image), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), 1.0)
    x, y = cv2.Scharr(small, -1, 1, 0), cv2.Scharr(small, -1, 0, 1)
    strength = cv2.magnitude(x, y)
    around = cv2.GaussianBlur(strength, (0, 0), width / 16) + 0.2 * strength.mean() + 1e-3
    doubled = np.stack([x * x - y * y, 2 * x * y], axis=2)
    result: npt.NDArray[np.float32] = doubled / ((strength + 1e-6) * around)[..., None]
    return result


def _grey(image: Image) -> Image:
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _search(pairs: Sequence[tuple[Image, Image]]) -> Matrix:
    """The thermal to RGB matrix of scale and shift under which most edges meet."""
    maps = [(directions(rgb, SEARCH_WIDTH), thermal) for rgb, thermal in pairs]
    best, answer = -np.inf, np.eye(3)
    rgb_width, thermal_width = pairs[0][0].shape[1], pairs[0][1].shape[1]
    for scale in SCALES:
        width = round(SEARCH_WIDTH * scale)
        total: Any = 0
        energy = 0.0
        for rgb_map, thermal in maps:
            heat = directions(thermal, width)
            # At most half of the thermal image lies beyond the RGB image, and counts as no match.
            high, wide = heat.shape[0] // 2, heat.shape[1] // 2
            padded = cv2.copyMakeBorder(rgb_map, high, high, wide, wide, cv2.BORDER_CONSTANT)
            total = total + cv2.matchTemplate(padded, heat, cv2.TM_CCORR)
            energy += float(np.square(heat).sum())
        _, value, _, (x, y) = cv2.minMaxLoc(total / np.sqrt(max(energy, 1e-12)))
        if value > best:
            best = value
            to_rgb = np.linalg.inv(_zoom(SEARCH_WIDTH / rgb_width))
            shift = np.array([[1.0, 0, x - wide], [0, 1, y - high], [0, 0, 1]])
            answer = to_rgb @ shift @ _zoom(width / thermal_width)
    return answer


def _has_room(size: tuple[int, int]) -> bool:
    """Whether an image is no longer than `LONGEST`, and has as many tiles as must agree."""
    return size[1] <= LONGEST * size[0] and all(
        len(_tiles(_shrunk(size, width), reach)) >= LEAST_TILES for width, reach in LEVELS
    )


def _shrunk(size: tuple[int, int], width: int) -> tuple[int, int]:
    """Width and height of an image when it is shrunk to a width."""
    return width, max(1, round(width * size[1] / size[0]))


def _tiles(size: tuple[int, int], reach: int) -> list[tuple[int, int]]:
    """Left and top of the tiles of an image that have `reach` around them, row by row."""
    side = size[0] // TILES
    columns, rows = (range(reach, n - side - reach + 1, side // 2) for n in size)
    return [(left, top) for top in rows for left in columns]


def _tile_matches(
    pairs: Sequence[tuple[Image, Image]], homography: Matrix, width: int, reach: int
) -> tuple[Matrix, Matrix]:
    """Where the tiles of the thermal image are by `homography`, and where their edges meet those
    of the RGB image: two (N, 2), pixels of the RGB image.
    """
    rgb_size = pairs[0][0].shape[1::-1]
    zoom = _zoom(width / rgb_size[0])
    size = _shrunk(rgb_size, width)
    maps = []
    for rgb, thermal in pairs:
        warped = cv2.warpPerspective(
            thermal, zoom @ homography, size, borderMode=cv2.BORDER_REPLICATE
        )
        maps.append((directions(rgb, width), directions(warped, width)))
    seen = cv2.warpPerspective(np.ones(pairs[0][1].shape[:2], np.uint8), zoom @ homography, size)
    side = width // TILES
    of, to = [], []
    for left, top in _tiles(size, reach):
        if not seen[top : top + side, left : left + side].all():
            continue
        shift = _tile_shift(maps, top, left, side, reach)
        if shift is not None:
            middle = np.array([left, top]) + (side - 1) / 2
            of.append(middle)
            to.append(middle + shift)
    back = np.linalg.inv(zoom)
    if not of:
        return np.empty((0, 2)), np.empty((0, 2))
    return project(back, of), project(back, to)


def _tile_shift(
    maps: Sequence[tuple[Image, Image]], top: int, left: int, side: int, reach: int
) -> Matrix | None:
    """x, y by which a tile of the thermal maps is off; None where nothing is sure."""
    total: Any = 0
    energy, other = 0.0, 0.0
    for rgb_map, heat_map in maps:
        tile = heat_map[top : top + side, left : left + side]
        around = rgb_map[top - reach : top + side + reach, left - reach : left + side + reach]
        total = total + cv2.matchTemplate(around, tile, cv2.TM_CCORR)
        energy += float(np.square(tile).sum())
        other += float(np.square(around).sum()) * side**2 / (side + 2 * reach) ** 2
    correlation = total / max(np.sqrt(energy * other), 1e-6)
    _, value, _, (x, y) = cv2.minMaxLoc(correlation)
    if value < LEAST_CORRELATION or not (0 < x < 2 * reach and 0 < y < 2 * reach):
        return None
    across, down = correlation[y, x - 1 : x + 2], correlation[y - 1 : y + 2, x]
    return np.array([x + _peak(across) - reach, y + _peak(down) - reach])


def _peak(three: Any) -> float:
    """Where the parabola through three values, the middle one the highest, has its top."""
    bend = three[0] - 2 * three[1] + three[2]
    return 0.0 if bend == 0 else float(0.5 * (three[0] - three[2]) / bend)


def _zoom(factor: float) -> Matrix:
    """Pixel centres of an image to those of the image resized by a factor."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])
