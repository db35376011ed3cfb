# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros

"""Image messages to arrays and back, with cv_bridge where it works and without."""

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from ainet_ros.ros import images

HEIGHT, WIDTH = 5, 7
# Encoding: type, channels, and where red, green and blue lie.
LAYOUTS = {
    "mono8": (np.uint8, 1, None),
    "8UC1": (np.uint8, 1, None),
    "mono16": (np.uint16, 1, None),
    "16UC1": (np.uint16, 1, None),
    "8UC3": (np.uint8, 3, [0, 1, 2]),
    "rgb8": (np.uint8, 3, [0, 1, 2]),
    "bgr8": (np.uint8, 3, [2, 1, 0]),
    "rgba8": (np.uint8, 4, [0, 1, 2]),
    "bgra8": (np.uint8, 4, [2, 1, 0]),
}


@pytest.fixture(params=["own codec", "cv_bridge"])
def codec(request, monkeypatch):
    """Each way to decode; cv_bridge only where it is installed and works."""
    if request.param == "own codec":
        monkeypatch.setattr(images, "cv_bridge", lambda: None)
    elif images.cv_bridge() is None:
        pytest.skip("cv_bridge is not installed, or does not work here")


def message(encoding, padding=0, is_bigendian=False):
    """A random image message and the pixels that it must give."""
    kind, channels, order = LAYOUTS[encoding]
    random = np.random.default_rng(len(encoding) + padding)
    shape = (HEIGHT, WIDTH, channels)
    pixels = random.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
    stored = pixels.astype(np.dtype(kind).newbyteorder(">" if is_bigendian else "<"))
    rows = stored.reshape(HEIGHT, -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    image = Image(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(is_bigendian),
    )
    image.data = array.array("B", rows.tobytes())
    return image, pixels[..., 0] if order is None else pixels[..., order]


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("encoding", LAYOUTS)
@pytest.mark.parametrize("padding", [0, 2, 3, 12])
@pytest.mark.parametrize("is_bigendian", [False, True])
def test_every_encoding_gives_the_same_pixels(encoding, padding, is_bigendian):
    image, pixels = message(encoding, padding, is_bigendian)
    decoded = images.decode(image)
    assert decoded.dtype == pixels.dtype
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoding": "jpg2000"}, "jpg2000"),
        ({"data": array.array("B", bytes(20))}, "20 bytes"),
        ({"step": 4}, "step"),
        ({"height": 0}, "empty"),
        ({"width": 0}, "empty"),
    ],
)
def test_a_wrong_image_says_what_is_wrong(change, text):
    image, _ = message("rgb8")
    for name, value in change.items():
        setattr(image, name, value)
    with pytest.raises(ValueError, match=text):
        images.decode(image)


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize("encoding", LAYOUTS)
def test_what_is_encoded_is_decoded(encoding):
    _, pixels = message(encoding)
    header = Header(frame_id="camera")
    image = images.to_image(pixels, encoding, header)
    assert (image.header, image.encoding) == (header, encoding)
    assert isinstance(image.data, array.array)
    np.testing.assert_array_equal(images.decode(image), pixels)


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "rgb8"])
def test_png_keeps_every_pixel(encoding):
    _, pixels = message(encoding)
    compressed = images.to_compressed(pixels, "png", Header(frame_id="camera"))
    assert (compressed.header.frame_id, compressed.format) == ("camera", "png")
    np.testing.assert_array_equal(images.decode(compressed), pixels)


def test_jpeg_keeps_the_colours_in_their_order():
    red = np.zeros((16, 16, 3), np.uint8)
    red[...] = (250, 30, 20)
    decoded = images.decode(images.to_compressed(red, "jpeg", Header(), quality=95))
    assert np.abs(decoded.astype(int) - red).max() < 6


def test_jpeg_refuses_16_bit():
    with pytest.raises(ValueError, match="16"):
        images.to_compressed(np.zeros((8, 8), np.uint16), "jpeg", Header())


def test_a_broken_compressed_image_says_so():
    with pytest.raises(ValueError, match="cannot be decoded"):
        images.decode(CompressedImage(data=array.array("B", b"no picture")))
