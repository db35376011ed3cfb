# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""One pass of a tracker over a recording, from the box of its first frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ainet_ros.tracker import Box, State, Timing, Track
from ainet_ros.vision.registration import Registration
from ainet_ros.vision.sources import Frame, Source
from ainet_ros.vision.thermal import ToneMap

STREAMS = ("both", "rgb", "thermal", "no-rgb", "no-thermal")
_Image = npt.NDArray[np.uint8]


class PairTracker(Protocol):
    """What is evaluated: `ainet_ros.tracker.Tracker`, or `opencv.OpenCVTracker`."""

    device: torch.device

    def init(self, rgb: _Image, thermal: _Image, box: Box) -> None:
        """Starts on a target."""

    def track(self, rgb: _Image, thermal: _Image) -> Track:
        """Finds it in the next frame."""


class Step(NamedTuple):
    """One frame of a pass.

    Attributes:
        frame: as it was recorded.
        thermal: uint8, in the geometry of the RGB image.
        track: the tracker's answer; for the first frame the given box, with a score of NaN.
    """

    frame: Frame
    thermal: npt.NDArray[np.uint8]
    track: Track


@dataclass(frozen=True)
class Result:
    """What a pass gave.

    Attributes:
        boxes: (N, 4) float64 x, y, w, h in pixels of the RGB image, the given one first.
        scores: (N,) float64, 0..1; NaN for the first frame, which is not searched.
        fps: frames a second of the tracker with tone mapping and registration, without reading
            the recording; NaN where only one frame was there.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    fps: float


def run(
    tracker: PairTracker,
    source: Source,
    box: Sequence[float],
    *,
    stream: str = "both",
    tone_map: ToneMap | None = None,
    registration: Registration | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> Result:
    """Tracks through a recording.

    Args:
        tracker: started anew on the first frame.
        source: the recording.
        box: x, y, w, h of the target in the first frame, pixels of the RGB image.
        stream: ``both``; or the one stream, ``rgb`` or ``thermal``, that the network is given as
            both modalities; or the one, ``no-rgb`` or ``no-thermal``, that is black after the
            first frame, as where its camera falls silent.
        tone_map: for 16-bit thermal images; by default percentiles smoothed over time.
        registration: of the thermal images; by default they are resized to the RGB images.
        on_step: is called after each frame.

    Raises:
        ValueError: `stream` is none of `STREAMS`, or images or box are not fit to be tracked.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r} is none of {', '.join(STREAMS)}")
    tone_map = tone_map or ToneMap()
    registration = registration or Registration()
    boxes: list[Box] = []
    scores: list[float] = []
    seconds = 0.0
    for frame in source:
        started = time.perf_counter()
        size = (frame.rgb.shape[1], frame.rgb.shape[0])
        thermal = registration.warp(tone_map(frame.thermal), size)
        seen = _streams(frame.rgb, thermal, stream, first=not boxes)
        if boxes:
            track = tracker.track(*seen)
            seconds += time.perf_counter() - started
        else:
            x, y, w, h = box
            tracker.init(*seen, (x, y, w, h))
            track = Track((x, y, w, h), np.nan, State.TRACKING, Timing(0.0, 0.0, 0.0))
        boxes.append(track.box)
        scores.append(track.score)
        if on_step:
            on_step(Step(frame, thermal, track))
    fps = (len(boxes) - 1) / seconds if seconds > 0 else np.nan
    return Result(np.array(boxes, np.float64), np.array(scores, np.float64), fps)


def _streams(rgb: _Image, thermal: _Image, stream: str, *, first: bool) -> tuple[_Image, _Image]:
    if stream == "rgb":
        return rgb, rgb
    if stream == "thermal":
        color = thermal if thermal.ndim == 3 else np.repeat(thermal[..., None], 3, axis=2)
        return color, color
    if stream == "no-rgb" and not first:
        return np.zeros_like(rgb), thermal
    if stream == "no-thermal" and not first:
        return rgb, np.zeros_like(thermal)
    return rgb, thermal
