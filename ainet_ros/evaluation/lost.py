# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Whether a target that was hidden is found again, and whether a wrong one is.

The target is cut out of both images for a second, as `presence.cut_out` does; when it is back, the
whole scene has jumped by a tenth to three tenths of the image, as where a camera is pushed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ainet_ros.tracker import Box, State, Tracker
from ainet_ros.vision.benchmarks import Sequence
from ainet_ros.vision.registration import Registration
from ainet_ros.vision.thermal import ToneMap

from .metrics import iou
from .presence import cut_out

Image = npt.NDArray[Any]
Pair = tuple[Image, Image]

LEAD = 4
"""Frames that the target is tracked through first."""
LEAST_AFTER = 10
"""Frames that must be left of the sequence when it is back."""
EVERY = 8
"""Frames between the starts of two trials."""
JUMP = (0.1, 0.3)
"""Of the image's width and height."""
ON_TARGET = 0.4
"""Least overlap of a box that is on the target."""
DRAWS = 100


@dataclass(frozen=True)
class Trial:
    """What became of a target that was hidden.

    Attributes:
        start: number of the first frame.
        hidden: frames in which it was.
        lost_after: of them, until it was LOST; None where it never was.
        false: of them, how often something else was found.
        found_after: frames until it was tracked again, within a second; None where it was not.
    """

    start: int
    hidden: int
    lost_after: int | None
    false: int
    found_after: int | None


def trials(tracker: Tracker, sequence: Sequence) -> Iterator[Trial]:
    """Hide the target at several places of a sequence.

    Those in which it is not tracked when it is hidden, or cannot jump, are left out. Raises
    ValueError where the sequence has no boxes, or the frames cannot be tracked in.
    """
    boxes = sequence.source.boxes
    if boxes is None:
        raise ValueError(f"{sequence.name}: has no boxes")
    tone_map, registration = ToneMap(), Registration()
    pairs: list[Pair] = []
    for frame in sequence.source:
        size = (frame.rgb.shape[1], frame.rgb.shape[0])
        pairs.append((frame.rgb, registration.warp(tone_map(frame.thermal), size)))
    second = max(1, round(sequence.source.rate))
    count = min(len(pairs), len(boxes))  # the last frames may have no labels
    for start in range(0, count - LEAD - second - LEAST_AFTER, EVERY):
        end = min(count, start + 1 + LEAD + 2 * second)
        if np.isfinite(boxes[start:end]).all():
            trial = _trial(tracker, pairs, boxes, (start, end), second)
            if trial is not None:
                yield trial


def _trial(
    tracker: Tracker,
    pairs: list[Pair],
    boxes: npt.NDArray[np.float64],
    frames: tuple[int, int],
    second: int,
) -> Trial | None:
    start, end = frames
    dark = start + 1 + LEAD
    tracker.init(*pairs[start], _box(boxes[start]))
    for number in range(start + 1, dark):
        track = tracker.track(*pairs[number])
    if track.state is State.LOST or _overlap(track.box, boxes[number]) < ON_TARGET:
        return None
    # Of the trial alone: every tracker meets the same.
    random = np.random.default_rng(start)
    jump = _jump(boxes[dark + second : end], pairs[0][0].shape, random)
    if jump is None:
        return None
    lost_after, false, state = None, 0, State.TRACKING
    for number in range(dark, dark + second):
        box = _box(boxes[number])
        rgb, thermal = pairs[number]
        before, state = state, tracker.track(cut_out(rgb, box), cut_out(thermal, box)).state
        if state is State.LOST and lost_after is None:
            lost_after = number - dark
        false += before is State.LOST and state is State.TRACKING
    found_after = None
    for number in range(dark + second, end):
        rgb, thermal = (_moved(image, jump) for image in pairs[number])
        track = tracker.track(rgb, thermal)
        truth = boxes[number] + [*jump, 0, 0]
        if track.state is State.TRACKING and _overlap(track.box, truth) >= ON_TARGET:
            found_after = number - dark - second
            break
    return Trial(start, second, lost_after, false, found_after)


def _jump(
    boxes: npt.NDArray[np.float64], shape: tuple[int, ...], random: np.random.Generator
) -> tuple[float, float] | None:
    """x, y in pixels that leave all boxes in the image; None where none was drawn."""
    height, width = shape[:2]
    for _ in range(DRAWS):
        angle, share = random.uniform(0, 2 * np.pi), random.uniform(*JUMP)
        jump = np.array([np.cos(angle) * width, np.sin(angle) * height]) * share
        corners = boxes[:, :2] + jump
        if (corners >= 0).all() and (corners + boxes[:, 2:] <= (width, height)).all():
            return float(jump[0]), float(jump[1])
    return None


def _moved(image: Image, jump: tuple[float, float]) -> Image:
    matrix = np.array([[1, 0, jump[0]], [0, 1, jump[1]]])
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT)


def _overlap(box: Box, truth: npt.NDArray[np.float64]) -> float:
    return float(iou(np.array([box]), truth[None])[0])


def _box(row: npt.NDArray[np.float64]) -> Box:
    x, y, w, h = (float(value) for value in row)
    return x, y, w, h
