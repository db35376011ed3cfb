# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A tracked frame in each arithmetic, as it is and compiled."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ainet_ros.tracker import Tracker
from ainet_ros.tracker.device import PRECISIONS, resolve, resolve_precision

from .measure import machine, median_times

SIZE = 640, 480
"""Width and height of the images."""
BOX = (290.0, 190.0, 60.0, 100.0)
FRAMES = 10
"""One after the other: what another network has left in the caches is gone after the first."""


def measure(weights: str, device: str, repeats: int) -> dict[str, Any]:
    """Median milliseconds of a frame with one target, the forms in turns of `FRAMES`.

    Raises FileNotFoundError or ValueError as `Tracker.load`.
    """
    where = resolve(device)
    usual = str(resolve_precision("auto", where)).removeprefix("torch.")
    forms: dict[str, tuple[str, bool]] = {}
    for name in PRECISIONS:
        if name not in ("auto", "int8"):
            forms |= {name: (name, False), f"{name}, compiled": (name, True)}
    if where.type == "cpu":
        forms["int8"] = "int8", True
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    thermal = np.ascontiguousarray(rgb[..., 0])  # as it comes from a camera

    def follow(tracker: Tracker) -> None:
        for _ in range(FRAMES):
            tracker.box = BOX
            tracker.track(rgb, thermal)

    functions = {}
    for form, (precision, compiled) in forms.items():
        tracker = Tracker.load(weights, device, precision, compiled)
        tracker.set_thresholds(0.0, 0.0)  # a LOST target is looked for in more windows
        tracker.init(rgb, thermal, BOX)
        functions[form] = partial(follow, tracker)
    times = median_times(functions, repeats)
    return {
        "machine": machine(),
        "device": str(where),
        "weights": weights,
        "repeats": repeats,
        "usual": usual,
        "frame_ms": {form: 1e3 * seconds / FRAMES for form, seconds in times.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    usual, times = result["usual"], result["frame_ms"]
    width, height = SIZE
    return "\n".join(
        [
            ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
            f"  {result['weights']} on {result['device']}, {width}x{height}",
            *(
                f"  {form:20}{ms:9.2f} ms{times[usual] / ms:8.2f} times as fast as {usual}"
                for form, ms in times.items()
            ),
        ]
    )
