# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Raw thermal counts to 8 bit."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

MODES = ("percentile", "minmax", "fixed")
_COUNTS = 1 << 16


class ToneMap:
    """Maps 16-bit thermal images to 8 bit, linearly between a lower and an upper limit.

    Raw counts fill a narrow band of the 16 bits. Limits that follow each frame alone make the
    image flicker when a hot object enters; so percentiles are smoothed over time. 8-bit images
    were mapped by their camera and pass unchanged.

    Args:
        mode: where the limits come from: ``percentile`` (smoothed over time), ``minmax`` (of
            each frame) or ``fixed`` (`limits`).
        percentiles: lower and upper, in percent.
        smoothing: weight of the past limits in the new ones, 0 (none) to below 1. The first
            image's limits are its own.
        limits: counts that map to 0 and 255 in mode ``fixed``.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        mode: str = "percentile",
        *,
        percentiles: tuple[float, float] = (1.0, 99.0),
        smoothing: float = 0.9,
        limits: tuple[float, float] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"tone map mode {mode!r} is none of {', '.join(MODES)}")
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles {percentiles} must rise within 0..100")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing {smoothing} must be at least 0 and below 1")
        if mode == "fixed" and (limits is None or not limits[0] < limits[1]):
            raise ValueError(f"mode fixed needs two rising limits in counts, not {limits}")
        self._mode = mode
        self._percentiles = np.array(percentiles)
        self._smoothing = smoothing
        self._fixed = limits
        self._limits: npt.NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forgets the past images."""
        self._limits = None

    def go_on_from(self, before: ToneMap) -> None:
        """Takes over the past images of a map of the same mode and percentiles."""
        same = self._mode == before._mode
        if same and np.array_equal(self._percentiles, before._percentiles):
            self._limits = before._limits

    def __call__(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Maps one image.

        Args:
            image: uint16 (height, width), or uint8 of any shape.

        Returns:
            uint8, of the image's shape; an 8-bit image itself.

        Raises:
            ValueError: the image has another type or shape.
        """
        if image.dtype == np.uint8:
            return image
        if image.dtype != np.uint16 or image.ndim != 2 or not image.size:
            raise ValueError(
                f"a thermal image of {image.dtype} {image.shape} cannot be mapped to 8 bit; "
                "expected uint8, or uint16 with one channel"
            )
        low, high = self._next_limits(image)
        counts = np.arange(_COUNTS, dtype=np.float32)
        # A constant image has no span: all of it maps to 0.
        scaled = (counts - low) * (255 / max(high - low, 1))
        table = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        mapped: npt.NDArray[np.uint8] = table[image]
        return mapped

    def _next_limits(self, image: npt.NDArray[np.uint16]) -> tuple[float, float]:
        if self._fixed is not None and self._mode == "fixed":
            return self._fixed
        if self._mode == "minmax":
            return float(image.min()), float(image.max())
        histogram = cv2.calcHist([np.ascontiguousarray(image)], [0], None, [_COUNTS], [0, _COUNTS])
        pixels = np.cumsum(histogram, dtype=np.float64)
        # One pixel at least: the lowest count that is there, not 0. All of them at 100 %, exactly.
        wanted = np.maximum(self._percentiles / 100 * pixels[-1], 1)
        now = np.searchsorted(pixels, wanted).astype(np.float64)
        if self._limits is None:
            self._limits = now
        else:
            self._limits = self._smoothing * self._limits + (1 - self._smoothing) * now
        return float(self._limits[0]), float(self._limits[1])
