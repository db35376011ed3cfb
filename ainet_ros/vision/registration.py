# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Thermal images into the geometry of the RGB images.

A calibration file is YAML::

    rgb_size: [640, 480]        # width, height, pixels
    thermal_size: [320, 256]    # width, height, pixels
    homography:                 # thermal pixel (x, y, 1) to RGB pixel, up to scale
      - [2.0, 0.0, 1.5]
      - [0.0, 1.9, -3.0]
      - [0.0, 0.0, 1.0]

A homography holds exactly for a plane or a far scene; near the cameras it leaves parallax.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from ainet_ros.files import read_yaml

MODES = ("none", "resize", "homography")


def _size(entry: Any, key: str) -> tuple[int, int]:
    if (
        not isinstance(entry, (list, tuple))
        or len(entry) != 2
        or not all(type(n) is int and n > 0 for n in entry)
    ):
        raise ValueError(f"{key} must be [width, height] in pixels, not {entry!r}")
    return entry[0], entry[1]


@dataclass(frozen=True)
class Calibration:
    """The homography from thermal to RGB pixels and the image sizes that it holds for.

    Attributes:
        homography: (3, 3) float64, thermal (x, y, 1) to RGB, up to scale.
        rgb_size, thermal_size: width, height in pixels.
    """

    homography: npt.NDArray[np.float64]
    rgb_size: tuple[int, int]
    thermal_size: tuple[int, int]

    def __post_init__(self) -> None:
        matrix = self.homography
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ValueError("homography must be 3 rows of 3 finite numbers")
        if abs(np.linalg.det(matrix / np.abs(matrix).max(initial=1e-12))) < 1e-12:
            raise ValueError("homography is singular: it maps the image onto a line")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Reads a calibration file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a calibration file; the message says where.
        """
        entries = read_yaml(path)
        keys = {"homography", "rgb_size", "thermal_size"}
        if not isinstance(entries, dict) or not keys <= entries.keys():
            missing = keys - set(entries if isinstance(entries, dict) else ())
            raise ValueError(f"{path}: calibration lacks {', '.join(sorted(missing))}")
        try:
            try:
                matrix = np.array(entries["homography"], np.float64)
            except (TypeError, ValueError, OverflowError):
                raise ValueError("homography must be 3 rows of 3 finite numbers") from None
            return cls(
                matrix,
                _size(entries["rgb_size"], "rgb_size"),
                _size(entries["thermal_size"], "thermal_size"),
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a calibration file."""
        entries = {
            "rgb_size": list(self.rgb_size),
            "thermal_size": list(self.thermal_size),
            "homography": self.homography.tolist(),
        }
        text = yaml.safe_dump(entries, sort_keys=False, default_flow_style=None)
        Path(path).write_text(text, encoding="utf-8")


class Registration:
    """Brings thermal images into RGB geometry.

    Args:
        mode: ``none`` (the streams are aligned and of equal size), ``resize`` (the same field
            of view, any size) or ``homography`` (by the calibration).
        calibration: a `Calibration` or its file; needed in mode ``homography``, refused in the
            others.

    Raises:
        ValueError: mode and calibration do not fit, or the file is not valid.
    """

    def __init__(
        self, mode: str = "resize", calibration: Calibration | str | PathLike[str] | None = None
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"registration {mode!r} is none of {', '.join(MODES)}")
        if (mode == "homography") != (calibration is not None):
            raise ValueError(
                "registration by homography needs a calibration file"
                if calibration is None
                else f"registration {mode!r} uses no calibration file; set it to 'homography'"
            )
        if calibration is not None and not isinstance(calibration, Calibration):
            calibration = Calibration.load(calibration)
        self._mode = mode
        self._calibration = calibration

    def warp(self, thermal: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
        """Gives the thermal image in RGB geometry.

        Args:
            thermal: uint8 or uint16, (height, width) or (height, width, 3).
            size: width, height of the RGB image in pixels.

        Returns:
            The same type and channels at the RGB image's size, 0 where the thermal camera does
            not look; the image itself where nothing is to be done.

        Raises:
            ValueError: the sizes differ in mode ``none``, or are not the calibration's.
        """
        own = (thermal.shape[1], thermal.shape[0])
        if self._calibration is not None:
            made_for = (self._calibration.thermal_size, self._calibration.rgb_size)
            if (own, tuple(size)) != made_for:
                raise ValueError(
                    f"thermal {_text(own)} and RGB {_text(size)} images do not fit the "
                    f"calibration, made for {_text(made_for[0])} and {_text(made_for[1])}"
                )
            return cv2.warpPerspective(thermal, self._calibration.homography, size)
        if own == tuple(size):
            return thermal
        if self._mode == "none":
            raise ValueError(
                f"thermal image is {_text(own)}, RGB image {_text(size)}: set the registration "
                "to 'resize' (same field of view) or 'homography' (calibration file)"
            )
        shrinks = own[0] > size[0]
        return cv2.resize(
            thermal, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
