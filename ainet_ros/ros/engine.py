# SPDX-License-Identifier: Apache-2.0
"""The tracker with what stands before it: decoding, tone mapping, registration. One owner."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ainet_ros.tracker import Box, Track, Tracker
from ainet_ros.vision.encoding import to_rgb
from ainet_ros.vision.registration import Registration
from ainet_ros.vision.thermal import ToneMap

from .images import decode
from .pairing import Pair
from .parameters import TrackerParameters

Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


class Settings(NamedTuple):
    """What live parameters change in an engine."""

    tone_map: ToneMap
    registration: Registration
    lost_below: float
    found_above: float

    @classmethod
    def of(cls, parameters: TrackerParameters) -> Settings:
        """Raises ValueError or OSError where parameters or calibration file are wrong."""
        return cls(
            ToneMap(
                parameters.tone_mode,
                percentiles=(parameters.tone_percentile_low, parameters.tone_percentile_high),
                smoothing=parameters.tone_smoothing,
                limits=(parameters.tone_fixed_low, parameters.tone_fixed_high),
            ),
            Registration(
                parameters.registration,
                parameters.calibration_file if parameters.registration == "homography" else None,
            ),
            parameters.lost_below,
            parameters.found_above,
        )


class Answer(NamedTuple):
    """What the engine makes of a pair."""

    target_id: int
    track: Track | None
    """None while there is no target."""
    images: Images | None
    """RGB and thermal as the tracker saw them; None where nobody needed them."""
    decode_ms: float


class Engine:
    """Follows one target through pairs of image messages. Not thread safe: one owner."""

    def __init__(self, tracker: Tracker, settings: Settings) -> None:
        self.target_id = 0  # 0: no target
        self._tracker = tracker
        self._given_ids = 0
        self.apply(settings)

    @classmethod
    def load(cls, parameters: TrackerParameters) -> Engine:
        """Load the weights onto the device and run them once, so that the first pair is quick.

        Raises ValueError or OSError naming what is wrong: weights, device or parameters.
        """
        settings = Settings.of(parameters)
        tracker = Tracker.load(parameters.weights, parameters.device, parameters.precision)
        blank = np.zeros((64, 64, 3), np.uint8)
        tracker.init(blank, blank, (16.0, 16.0, 32.0, 32.0))
        tracker.track(blank, blank)
        return cls(tracker, settings)

    def apply(self, settings: Settings) -> None:
        """Take new settings from the next pair on."""
        self._tone_map = settings.tone_map
        self._registration = settings.registration
        self._tracker.set_thresholds(settings.lost_below, settings.found_above)

    def init(self, pair: Pair, box: Box, normalized: bool) -> int:
        """Start on a target, given in pixels of the RGB image or fractions of it; return its id.

        Raises ValueError where images or box do not serve; a target before is then kept.
        """
        if self.target_id == 0:
            self._tone_map.reset()  # what it learnt may be long past
        rgb, thermal = self._images(pair)
        if normalized:
            height, width = rgb.shape[:2]
            x, y, w, h = box
            box = (x * width, y * height, w * width, h * height)
        self._tracker.init(rgb, thermal, box)
        self._given_ids += 1
        self.target_id = self._given_ids
        return self.target_id

    def reset(self, target_id: int) -> None:
        """Drop a target (0: every target). Raises ValueError where there is none of that id."""
        if target_id not in (0, self.target_id):
            tracked = f"the target is {self.target_id}" if self.target_id else "there is no target"
            raise ValueError(f"no target has the id {target_id}: {tracked}")
        self.target_id = 0

    def process(self, pair: Pair, images_wanted: bool) -> Answer:
        """Track through a pair. Raises ValueError where its images do not serve."""
        if self.target_id == 0 and not images_wanted:
            return Answer(0, None, None, 0.0)
        start = time.perf_counter()
        images = self._images(pair)
        decode_ms = (time.perf_counter() - start) * 1e3
        track = self._tracker.track(*images) if self.target_id else None
        return Answer(self.target_id, track, images, decode_ms)

    def _images(self, pair: Pair) -> Images:
        rgb = to_rgb(decode(pair.rgb))
        thermal = self._tone_map(decode(pair.thermal))
        return rgb, self._registration.warp(thermal, (rgb.shape[1], rgb.shape[0]))
