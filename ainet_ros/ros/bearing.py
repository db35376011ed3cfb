# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The direction in which a calibrated camera sees a pixel."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

FISHEYE = "equidistant"
"""The distortion_model of OpenCV's fisheye lens; the others are its ordinary one."""
COEFFICIENTS, FISHEYE_COEFFICIENTS = (0, 4, 5, 8, 12, 14), (0, 4)
"""So many a distortion may have."""


def ray(
    info: Any, size: tuple[int, int], x: float, y: float, *, rectified: bool = False
) -> tuple[float, float, float] | None:
    """The unit vector to pixel (x, y) in the optical frame (REP-103: x right, y down, z ahead).

    info: sensor_msgs/CameraInfo. size: width and height of the image that the pixel is of, which
    may be a smaller copy of the one that was calibrated, or of the part of it that `roi` tells.
    rectified: it is image_rect, of which `p` tells and which has no distortion (REP-104), rather
    than image_raw. None where the camera is not calibrated. Raises ValueError where its
    calibration is none that a lens has.
    """
    matrix = np.array(info.k, np.float64).reshape(3, 3)
    if rectified:
        matrix = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
    if not (matrix[0, 0] and matrix[1, 1] and info.width and info.height):
        return None
    # The part of the sensor that the image is of, in pixels of the whole.
    left, top, width, height = 0, 0, info.width, info.height
    if info.roi.width and info.roi.height:
        left, top = info.roi.x_offset, info.roi.y_offset
        width, height = info.roi.width, info.roi.height
    # Pixel centres are whole numbers in CameraInfo, and halves in a box.
    pixel = np.array(
        [[[left + x * width / size[0] - 0.5, top + y * height / size[1] - 0.5]]], np.float64
    )
    distortion = np.array([] if rectified else info.d, np.float64)
    fisheye = info.distortion_model == FISHEYE and not rectified
    counts = FISHEYE_COEFFICIENTS if fisheye else COEFFICIENTS
    if len(distortion) not in counts:
        raise ValueError(
            f"camera_info has {len(distortion)} distortion coefficients (d), and distortion_model "
            f"{info.distortion_model!r} takes {', '.join(map(str, counts))}"
        )
    undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    distortion = distortion if len(distortion) else np.zeros(4)
    ((u, v),) = undistort(pixel, matrix, distortion)[0].tolist()
    length = math.hypot(u, v, 1)
    if not math.isfinite(length):
        raise ValueError(
            "camera_info gives no direction: its matrix k (or p) or distortion d is wrong"
        )
    return u / length, v / length, 1 / length
