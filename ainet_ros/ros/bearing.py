# SPDX-License-Identifier: Apache-2.0
"""The direction in which a calibrated camera sees a pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

FISHEYE = "equidistant"
"""The distortion_model of OpenCV's fisheye lens; the others are its ordinary one."""


def ray(info: Any, size: tuple[int, int], x: float, y: float) -> tuple[float, float, float] | None:
    """The unit vector to pixel (x, y) in the optical frame (REP-103: x right, y down, z ahead).

    info: sensor_msgs/CameraInfo. size: width and height of the image that the pixel is of, which
    may be a smaller copy of the one that was calibrated. None where the camera is not calibrated,
    or its calibration is none.
    """
    matrix = np.array(info.k, np.float64).reshape(3, 3)
    if not (matrix[0, 0] and matrix[1, 1] and info.width and info.height):
        return None
    # Pixel centres are whole numbers in CameraInfo, and halves in a box.
    pixel = np.array([[[x * info.width / size[0] - 0.5, y * info.height / size[1] - 0.5]]])
    distortion = np.array(info.d, np.float64)
    undistort = (
        cv2.fisheye.undistortPoints if info.distortion_model == FISHEYE else cv2.undistortPoints
    )
    try:
        ((u, v),) = undistort(pixel, matrix, distortion if len(distortion) else np.zeros(4))[0]
    except cv2.error:  # so many coefficients are of no lens
        return None
    length = np.sqrt(u * u + v * v + 1)
    if not np.isfinite(length):
        return None
    return float(u / length), float(v / length), float(1 / length)
