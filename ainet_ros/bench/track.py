# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Where the time of a tracked frame goes."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ainet_ros.tracker import Box, Target, Timing, Tracker

from .measure import machine, median_times

TARGET = (0.45, 0.4, 0.1, 0.2)
"""x, y, w, h of the target in widths and heights of the image."""


def measure(
    tracker: Tracker, sizes: Iterable[tuple[int, int]], repeats: int, targets: int
) -> dict[str, Any]:
    """By the size of the images (width and height): median milliseconds of the parts of a frame,
    frames a second, and of a frame with so many targets in turns with one of one.

    The images are noise, the target stays: what is found makes no difference to the time.
    """
    tracker.set_thresholds(0.0, 0.0)  # a LOST target is looked for in more windows
    rng = np.random.default_rng(0)
    rows: dict[str, dict[str, Any]] = {}
    for width, height in sizes:
        rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
        thermal = np.ascontiguousarray(rgb[..., 0])  # as it comes from a camera
        x, y, w, h = TARGET
        box = x * width, y * height, w * width, h * height
        tracker.init(rgb, thermal, box)
        timings: list[Timing] = []
        for _ in range(repeats + 1):
            tracker.box = box
            timings.append(tracker.track(rgb, thermal).timing)
        parts = {
            field.name: statistics.median(getattr(t, field.name) for t in timings[1:])
            for field in dataclasses.fields(Timing)
        }
        whole = sum(parts.values())
        several = median_times(
            {
                str(count): partial(
                    _advance,
                    tracker,
                    rgb,
                    thermal,
                    box,
                    [tracker.start(rgb, thermal, box) for _ in range(count)],
                )
                for count in sorted({1, targets})
            },
            repeats,
        )
        beside = parts["preprocess_ms"] + parts["postprocess_ms"]
        rows[f"{width}x{height}"] = {
            **parts,
            "frames_per_second": 1e3 / whole,
            "share_beside_network": beside / whole,
            "targets_ms": {count: seconds * 1e3 for count, seconds in several.items()},
        }
    return {
        "machine": machine(),
        "device": str(tracker.device),
        "repeats": repeats,
        "sizes": rows,
    }


def _advance(
    tracker: Tracker,
    rgb: NDArray[np.uint8],
    thermal: NDArray[np.uint8],
    box: Box,
    targets: list[Target],
) -> None:
    """A frame of all the targets, each looked for where `box` is."""
    for target in targets:
        target.box = box
    tracker.advance(rgb, thermal, targets)


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    names = ("preprocess", "network", "postprocess")
    lines = [
        ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
        f"  {'images':12}" + "".join(f"{name:>14}" for name in names) + "      fps   but network",
    ]
    for size, row in result["sizes"].items():
        parts = "".join(f"{row[f'{name}_ms']:11.2f} ms" for name in names)
        lines.append(
            f"  {size:12}{parts}{row['frames_per_second']:9.1f}{row['share_beside_network']:14.1%}"
        )
        one = row["targets_ms"]["1"]
        lines += [
            f"    {count} targets at once: {ms:.2f} ms, {ms / one:.2f} times one"
            for count, ms in row["targets_ms"].items()
            if count != "1"
        ]
    return "\n".join(lines)
