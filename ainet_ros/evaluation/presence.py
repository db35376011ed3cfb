# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Whether the score tells that the target is there: it is asked with the target and without.

A search region is laid at the target's true box in two pictures, the frame as it was recorded and
the frame with the target cut out and filled from around it. The area under the ROC curve of the
two sets of scores is 1 where a threshold parts them, 0.5 where they tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ainet_ros.tracker import Box, Tracker
from ainet_ros.vision.benchmarks import Sequence
from ainet_ros.vision.registration import Registration
from ainet_ros.vision.thermal import ToneMap

Image = npt.NDArray[Any]

MARGIN = 0.1
"""Of a target's width and height, on each side of its box, that is cut out with it."""
_LARGEST_HOLE = 64  # pixels; what is filled has no detail that would need more


@dataclass(frozen=True)
class Scores:
    """The scores of some frames, float64, 0..1, in pairs: (N,) each."""

    present: npt.NDArray[np.float64]
    absent: npt.NDArray[np.float64]

    @property
    def auroc(self) -> float:
        """The share of all pairs (present, absent) in which the first is higher; ties count half.

        NaN without scores.
        """
        if not len(self.present):
            return float("nan")
        difference = self.present[:, None] - self.absent[None]
        return float((difference > 0).mean() + (difference == 0).mean() / 2)


def scores(tracker: Tracker, sequence: Sequence, every: int = 5) -> Scores:
    """The scores on every n-th frame after the first that has a true box.

    The tracker's thresholds become 0: its target is never LOST, and looked for there alone.
    Raises ValueError where `every` is not positive, or the frames cannot be tracked in.
    """
    if every < 1:
        raise ValueError(f"every {every}: must be at least 1")
    tone_map, registration = ToneMap(), Registration()
    boxes = sequence.source.boxes
    if boxes is None:
        raise ValueError(f"{sequence.name}: has no boxes")
    tracker.set_thresholds(0.0, 0.0)
    found: list[tuple[float, float]] = []
    for number, frame in enumerate(sequence.source):
        size = (frame.rgb.shape[1], frame.rgb.shape[0])
        pair = frame.rgb, registration.warp(tone_map(frame.thermal), size)
        if number == 0:
            tracker.init(*pair, _tuple(sequence.start))
        elif (
            number % every == 0
            and number < len(boxes)  # the last frames may have no labels
            and np.isfinite(boxes[number]).all()
        ):
            box = _tuple(boxes[number])
            asked = []
            for rgb, thermal in (pair, (cut_out(pair[0], box), cut_out(pair[1], box))):
                tracker.box = box
                asked.append(tracker.track(rgb, thermal).score)
            found.append((asked[0], asked[1]))
    both = np.array(found, np.float64).reshape(-1, 2)
    return Scores(both[:, 0], both[:, 1])


def cut_out(image: Image, box: Box) -> Image:
    """A copy of an image (H, W) or (H, W, 3) uint8 in which what surrounds the box fills it."""
    height, width = image.shape[:2]
    x, y, w, h = box
    x0, y0 = max(0, int(x - MARGIN * w)), max(0, int(y - MARGIN * h))
    x1, y1 = min(width, int(x + w * (1 + MARGIN)) + 1), min(height, int(y + h * (1 + MARGIN)) + 1)
    if x0 >= x1 or y0 >= y1:
        return image.copy()
    # A ring around the hole to fill it from.
    ring = max(4, (x1 - x0) // 2, (y1 - y0) // 2)
    left, top = max(0, x0 - ring), max(0, y0 - ring)
    area = np.ascontiguousarray(image[top : y1 + ring, left : x1 + ring])
    scale = min(1.0, _LARGEST_HOLE / max(x1 - x0, y1 - y0))
    small = cv2.resize(area, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    mask = np.zeros(area.shape[:2], np.uint8)
    hole = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    mask[hole] = 255
    small_mask = cv2.resize(mask, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    filled = cv2.inpaint(small, (small_mask > 0).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(filled, area.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    result = image.copy()
    result[y0:y1, x0:x1] = filled.reshape(area.shape)[hole]
    return result


def _tuple(box: Any) -> Box:
    x, y, w, h = (float(value) for value in box)
    return x, y, w, h
