# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What live parameters change in the tracker and in what stands before it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ainet_ros.vision.registration import Registration
from ainet_ros.vision.thermal import ToneMap

from .parameters import TrackerParameters

REGISTRATION = frozenset({"registration", "calibration_file"})
"""Parameters of it."""


class Settings(NamedTuple):
    """Made of the parameters; the tone map has seen no image yet."""

    tone_map: ToneMap
    registration: Registration | None
    """None: as before."""
    thresholds: tuple[float, float]
    search_windows: int
    max_targets: int

    @classmethod
    def of(
        cls, parameters: TrackerParameters, changed: Collection[str] = REGISTRATION
    ) -> Settings:
        """changed: names of the parameters that are new; where none of `REGISTRATION` is, the
        calibration file, which may be gone by now, is not read again.

        Raises ValueError or OSError where parameters or calibration file are wrong.
        """
        registration = None
        if not REGISTRATION.isdisjoint(changed):
            registration = Registration(
                parameters.registration,
                parameters.calibration_file if parameters.registration == "homography" else None,
            )
        return cls(
            ToneMap(
                parameters.tone_mode,
                percentiles=(parameters.tone_percentile_low, parameters.tone_percentile_high),
                smoothing=parameters.tone_smoothing,
                limits=(parameters.tone_fixed_low, parameters.tone_fixed_high),
            ),
            registration,
            parameters.thresholds,
            parameters.search_windows,
            parameters.max_targets,
        )
