# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The direction of a target."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ainet_ros.ros.bearing import ray

K = [400.0, 0.0, 319.5, 0.0, 410.0, 239.5, 0.0, 0.0, 1.0]


def camera(k=K, d=(), model="plumb_bob", roi=(0, 0, 0, 0), p=(0.0,) * 12):
    x, y, width, height = roi
    part = SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height)
    return SimpleNamespace(
        k=k, d=list(d), p=list(p), width=640, height=480, distortion_model=model, roi=part
    )


def test_the_middle_is_ahead_and_right_and_down_are_positive():
    assert ray(camera(), (640, 480), 320, 240) == pytest.approx((0, 0, 1))
    x, y, z = ray(camera(), (640, 480), 720, 240)
    assert math.degrees(math.atan2(x, z)) == pytest.approx(45)
    assert y == pytest.approx(0)
    assert ray(camera(), (640, 480), 320, 300)[1] > 0


def test_a_smaller_copy_of_the_image_has_the_same_directions():
    assert ray(camera(), (320, 240), 100, 50) == pytest.approx(ray(camera(), (640, 480), 200, 100))


def test_an_image_of_a_part_of_the_sensor_has_the_directions_of_that_part():
    part = camera(roi=(200, 100, 320, 240))
    assert ray(part, (320, 240), 50, 30) == pytest.approx(ray(camera(), (640, 480), 250, 130))
    assert ray(part, (160, 120), 25, 15) == pytest.approx(ray(camera(), (640, 480), 250, 130))


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", (-0.2, 0.05, 0.001, 0.002, 0.0)),
        ("rational_polynomial", (0.1, 0.01, 0, 0, 0.001, 0.2, 0.02, 0.001)),
        ("equidistant", (-0.02, 0.005, 0.0, 0.0)),
        ("", ()),
    ],
)
def test_a_point_is_seen_where_it_is(model, d):
    point = np.array([0.3, -0.2, 1.0])
    matrix, distortion = np.reshape(K, (3, 3)), np.array(d, float) if d else np.zeros(4)
    zero = np.zeros(3)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    (pixel,) = project(point[None, None], zero, zero, matrix, distortion)[0][0]
    found = ray(camera(d=d, model=model), (640, 480), *(pixel + 0.5))
    assert found == pytest.approx(point / np.linalg.norm(point), abs=1e-4)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_a_rectified_image_has_the_directions_of_p(model):
    p = [300.0, 0.0, 309.5, -30.0, 0.0, 300.0, 229.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    raw = camera(d=(-0.2, 0.05, 0.001, 0.002), model=model, p=p)
    plain = camera(k=[300.0, 0.0, 309.5, 0.0, 300.0, 229.5, 0.0, 0.0, 1.0])
    assert ray(raw, (640, 480), 600, 420, rectified=True) == ray(plain, (640, 480), 600, 420)
    assert ray(camera(), (640, 480), 600, 420, rectified=True) is None  # p is not known


def test_an_uncalibrated_camera_has_no_directions():
    assert ray(camera(k=[0.0] * 9), (640, 480), 1, 1) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"k": [math.nan] * 9}, "no direction"),
        ({"d": (0.1, 0.1, 0.1)}, r"has 3 distortion coefficients \(d\)"),
        ({"d": (math.inf,) * 5}, "no direction"),
    ],
)
def test_a_calibration_of_no_lens_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        ray(camera(**changes), (640, 480), 1, 1)
