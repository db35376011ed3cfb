# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Warm things in thermal images: outlines, and pseudo tracks where the camera stands still.

Nobody labelled these recordings. What is found here is only used where it is plain: one compact
region, much warmer than what surrounds it, in the upright shape of a person, and, over time, one
region that alone continues the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
Rectangle = tuple[int, int, int, int]
"""x, y, w, h in whole pixels."""

ASPECTS = 1.4, 4.5
"""Height over width of an upright person."""
FILLS = 0.38, 0.9
"""Share of its box that a person fills."""
LEAST_HEIGHT, LARGEST_SHARE = 24, 0.6
"""Height in pixels, and share of the image's height."""
LEAST_OUTLINED = 36
"""Height in pixels from which an outline tells a person."""
LEAST_CONTRAST = 35.0
"""Grey levels between the region and what surrounds it."""
LEAST_OVERLAP, LARGEST_GROWTH = 0.4, 1.3
"""Of a region with the one it continues: IoU, and the change of its area."""
SMOOTHING = 5
"""Frames over which a track's boxes are averaged."""


@dataclass(frozen=True)
class Blob:
    """One region: its tight box and its mask, (h, w) of 0 and 255."""

    box: Rectangle
    mask: Image


def warm_blobs(thermal: Image) -> list[Blob]:
    """The regions of an (H, W) uint8 thermal image that stand out as a person does.

    A region is taken from the lowest of several thresholds at which it has the shape, and only
    if the next threshold leaves two thirds of it: its edge is then a real one.
    """
    found: list[Blob] = []
    smooth = cv2.GaussianBlur(thermal, (0, 0), 1.0)
    for threshold in range(70, 220, 15):
        for blob in _regions(smooth > threshold):
            x, y, w, h = blob.box
            inner = smooth[y : y + h, x : x + w] > threshold + 15
            kept = np.count_nonzero(inner & (blob.mask > 0)) / np.count_nonzero(blob.mask)
            if (
                kept > 0.67
                and _looks_upright(blob, thermal.shape)
                and _contrast(thermal, blob) > LEAST_CONTRAST
                and all(overlap(blob.box, other.box) < 0.1 for other in found)
            ):
                found.append(blob)
    return found


def outline(thermal: Image) -> Blob | None:
    """The warm person that a tight (H, W) uint8 thermal crop shows, by Otsu's threshold.

    None where the warm part is not one region that spans the crop and has a person's outline:
    the threshold has then split the person, or found something else.
    """
    height, width = thermal.shape
    smooth = cv2.GaussianBlur(thermal, (0, 0), max(0.5, height / 60))
    _, mask = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    label = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    x, y, w, h = (int(v) for v in statistics[label, :4])
    region = _filled((labels[y : y + h, x : x + w] == label).astype(np.uint8) * 255)
    blob = Blob((x, y, w, h), region)
    if h < 0.9 * height or w < 0.7 * width or not has_person_outline(blob):
        return None
    return blob


def has_person_outline(blob: Blob) -> bool:
    """Whether a region, large enough to tell, is a whole person rather than a limb or a group:
    free corners, a head narrower than what is below, few hollows.
    """
    _, _, w, h = blob.box
    if h < LEAST_OUTLINED or not 1.6 < h / w < 4.0:
        return False
    inside = blob.mask > 0
    corner_h, corner_w = round(0.12 * h), max(1, round(0.2 * w))
    corners = np.concatenate(
        [
            inside[rows, columns].ravel()
            for rows in (slice(None, corner_h), slice(h - corner_h, None))
            for columns in (slice(None, corner_w), slice(w - corner_w, None))
        ]
    )
    widths = inside.sum(axis=1)
    points = cv2.findNonZero(blob.mask)
    solidity = np.count_nonzero(inside) / cv2.contourArea(cv2.convexHull(points))
    return bool(
        corners.mean() < 0.25
        and widths[: h // 8].mean() < 0.7 * widths[h // 4 : h // 2].mean()
        and widths[: h // 3].min() > 0.08 * w
        and 0.35 < inside.mean() < 0.8
        and solidity > 0.62
    )


def moving_blobs(thermal: Image, background: Image) -> list[Blob]:
    """The regions of an (H, W) uint8 thermal image that differ from the empty scene and have a
    person's shape.
    """
    difference = cv2.GaussianBlur(cv2.absdiff(thermal, background), (0, 0), 1.0)
    mask = cv2.morphologyEx(
        (difference > 25).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8)
    )
    return [blob for blob in _regions(mask > 0) if _looks_upright(blob, thermal.shape)]


def link(frames: Sequence[Sequence[Blob]], least_length: int) -> list[tuple[int, NDArray]]:
    """Joins the blobs of successive frames to tracks: (first frame, (N, 4) smoothed boxes).

    A track ends where its blob is lost, changes size abruptly, or comes near a second one: what
    cannot be told apart is left out. Tracks below `least_length` frames are dropped.
    """
    finished: list[tuple[int, list[Rectangle]]] = []
    active: list[tuple[int, list[Rectangle]]] = []
    for number, blobs in enumerate(frames):
        continued: list[tuple[int, list[Rectangle]]] = []
        taken: set[int] = set()
        for first, boxes in active:
            last = boxes[-1]
            near = [i for i, blob in enumerate(blobs) if overlap(last, blob.box) > 0]
            if (
                len(near) == 1
                and near[0] not in taken
                and overlap(last, blobs[near[0]].box) >= LEAST_OVERLAP
                and 1 / LARGEST_GROWTH < _area(blobs[near[0]].box) / _area(last) < LARGEST_GROWTH
            ):
                taken.add(near[0])
                continued.append((first, [*boxes, blobs[near[0]].box]))
            else:
                finished.append((first, boxes))
        continued += [(number, [blob.box]) for i, blob in enumerate(blobs) if i not in taken]
        active = continued
    return [
        (first, _smooth(np.array(boxes, np.float64)))
        for first, boxes in finished + active
        if len(boxes) >= least_length
    ]


def overlap(a: Rectangle, b: Rectangle) -> float:
    """Intersection over union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (_area(a) + _area(b) - width * height)


def _regions(mask: NDArray[np.bool_]) -> list[Blob]:
    """The connected regions of a mask, without those at the image's edge, which it may cut."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    height, width = mask.shape
    blobs = []
    for label in range(1, count):
        x, y, w, h = (int(v) for v in statistics[label, :4])
        if h < LEAST_HEIGHT or x < 2 or y < 2 or x + w > width - 2 or y + h > height - 2:
            continue
        region = _filled((labels[y : y + h, x : x + w] == label).astype(np.uint8) * 255)
        blobs.append(Blob((x, y, w, h), region))
    return blobs


def _filled(mask: Image) -> Image:
    """A mask without its holes."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, outlines, -1, (255,), cv2.FILLED)
    return filled


def _looks_upright(blob: Blob, shape: tuple[int, ...]) -> bool:
    _, _, w, h = blob.box
    fill = np.count_nonzero(blob.mask) / (w * h)
    return bool(
        ASPECTS[0] < h / w < ASPECTS[1]
        and FILLS[0] < fill < FILLS[1]
        and h < LARGEST_SHARE * shape[0]
    )


def _contrast(thermal: Image, blob: Blob) -> float:
    """Mean of the region less the mean around it, within a margin of a third of its width."""
    x, y, w, h = blob.box
    margin = max(3, w // 3)
    x0, y0 = max(0, x - margin), max(0, y - margin)
    patch = thermal[y0 : y + h + margin, x0 : x + w + margin]
    inside = np.zeros(patch.shape, np.uint8)
    inside[y - y0 : y - y0 + h, x - x0 : x - x0 + w] = blob.mask
    around = cv2.dilate(inside, np.ones((3, 3), np.uint8)) == 0
    if not around.any():
        return 0.0
    return float(patch[inside > 0].mean() - patch[around].mean())


def _smooth(boxes: NDArray) -> NDArray:
    """Boxes (N, 4) averaged over time, in the corners, with the ends repeated."""
    half = SMOOTHING // 2
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    padded = np.pad(corners, ((half, half), (0, 0)), mode="edge")
    kernel = np.ones(SMOOTHING) / SMOOTHING
    corners = np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])


def _area(box: Rectangle) -> int:
    return box[2] * box[3]
