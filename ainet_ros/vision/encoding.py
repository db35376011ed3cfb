# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pixels and stamps of ROS messages to and from arrays and numbers, without ROS.

The encodings are those of ``sensor_msgs/image_encodings``. Inside the project colour is RGB.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

Image = npt.NDArray[Any]

COMPRESSED = ("PNG", "JPEG", "TIFF", "BMP")
MOST_PIXELS = 1 << 26
"""Of a compressed image: more than cameras have. A few bytes can claim to hold any number."""


class _Layout(NamedTuple):
    dtype: type[np.unsignedinteger[Any]]
    channels: int
    bgr: bool


# 8UC3 names no colour order; like cv_bridge's conversion of it to rgb8, it is taken as it is.
_LAYOUTS = {
    "mono8": _Layout(np.uint8, 1, False),
    "8UC1": _Layout(np.uint8, 1, False),
    "mono16": _Layout(np.uint16, 1, False),
    "16UC1": _Layout(np.uint16, 1, False),
    "rgb8": _Layout(np.uint8, 3, False),
    "8UC3": _Layout(np.uint8, 3, False),
    "bgr8": _Layout(np.uint8, 3, True),
    "rgba8": _Layout(np.uint8, 4, False),
    "bgra8": _Layout(np.uint8, 4, True),
}

ENCODINGS = tuple(_LAYOUTS)


class _Raw(NamedTuple):
    channels: int
    to_rgb: int


# What cameras give before it is made an image of. OpenCV calls a Bayer pattern by the two pixels
# in the middle of its second row.
_RAW = {
    "bayer_rggb8": _Raw(1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Raw(1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Raw(1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Raw(1, cv2.COLOR_BayerGB2RGB),
    "yuv422": _Raw(2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Raw(2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Raw(2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Raw(2, cv2.COLOR_YUV2RGB_YUY2),
}

RAW_ENCODINGS = tuple(_RAW)


def stamp_ns(stamp: Any) -> int:
    """A `builtin_interfaces/Time` in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _unsupported(encoding: str, supported: Sequence[str]) -> ValueError:
    return ValueError(
        f"image encoding {encoding!r} is not supported; convert it to one of "
        + ", ".join(supported)
    )


def decode_image(message: Any) -> Image:
    """`decode` of a ``sensor_msgs/Image``."""
    return decode(
        message.data,
        message.height,
        message.width,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
    )


def decode(
    data: Any, height: int, width: int, encoding: str, step: int, is_bigendian: bool
) -> Image:
    """Gives the pixels of a ``sensor_msgs/Image``.

    The result is a view of `data` (read-only where `data` is) except for 16-bit pixels that are
    big-endian or in rows of odd length, which are copied, and for raw encodings, which are
    converted. Alpha is dropped; padding at the end of rows is skipped.

    Args:
        data: a buffer of at least `height` * `step` bytes less the last row's padding.
        height, width: pixels.
        encoding: one of `ENCODINGS` or `RAW_ENCODINGS`.
        step: bytes from one row to the next.
        is_bigendian: byte order of 16-bit pixels.

    Returns:
        uint8 (height, width, 3) in RGB order, or uint8 or uint16 (height, width).

    Raises:
        ValueError: the encoding is unknown, or size, step and data do not fit together.
    """
    raw = _RAW.get(encoding)
    layout = _LAYOUTS.get(encoding) if raw is None else _Layout(np.uint8, raw.channels, False)
    if layout is None:
        raise _unsupported(encoding, ENCODINGS + RAW_ENCODINGS)
    dtype = np.dtype(layout.dtype).newbyteorder(">" if is_bigendian else "<")
    pixel = dtype.itemsize * layout.channels
    if height < 1 or width < 1:
        raise ValueError(f"image of {width}x{height} pixels is empty")
    if step < width * pixel:
        raise ValueError(
            f"image step {step} is less than a row of {width} {encoding} pixels "
            f"({width * pixel} bytes)"
        )
    given = np.frombuffer(data, np.uint8)
    needed = (height - 1) * step + width * pixel
    if given.size < needed:
        raise ValueError(
            f"image data has {given.size} bytes, a {width}x{height} {encoding} image with "
            f"step {step} needs {needed}"
        )
    image: Image = np.ndarray(
        (height, width, layout.channels),
        dtype,
        buffer=given,
        strides=(step, pixel, dtype.itemsize),
    )
    if raw is not None:
        if raw.channels == 2 and width % 2:
            raise ValueError(f"a {encoding} image of {width}x{height} pixels: the width is odd")
        if raw.channels == 1 and min(width, height) < 3:  # OpenCV makes it black
            raise ValueError(
                f"a {encoding} image of {width}x{height} pixels: it must have 3 a side or more"
            )
        converted: Image = cv2.cvtColor(image, raw.to_rgb)
        return converted
    if layout.channels == 1:
        odd = step % dtype.itemsize != 0  # OpenCV takes no array of such rows
        return image[..., 0].astype(layout.dtype, copy=odd)
    return image[..., 2::-1] if layout.bgr else image[..., :3]


def encode(image: Image, encoding: str) -> tuple[bytes, int]:
    """Gives (data, step) of a ``sensor_msgs/Image`` with these pixels, rows not padded.

    16-bit pixels are written little-endian (``is_bigendian`` 0); alpha is written as 255.

    Args:
        image: uint8 (height, width, 3) in RGB order for the colour encodings, uint8 or uint16
            (height, width) for the others.
        encoding: one of `ENCODINGS`.

    Raises:
        ValueError: the encoding is unknown or does not fit the array.
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise _unsupported(encoding, ENCODINGS)
    channels = 1 if layout.channels == 1 else 3
    if image.dtype != layout.dtype or image.ndim + (channels == 1) != 3:
        raise ValueError(
            f"an array of {image.dtype} {image.shape} cannot be written as {encoding}"
        )
    if channels == 3 and image.shape[2] != 3:
        raise ValueError(f"a colour image has 3 channels, this one {image.shape[2]}")
    if layout.bgr:
        image = image[..., ::-1]
    if layout.channels == 4:
        image = np.concatenate([image, np.full_like(image[..., :1], 255)], axis=2)
    little = image.astype(image.dtype.newbyteorder("<"), copy=False)
    return little.tobytes(), image.shape[1] * layout.channels * image.dtype.itemsize


def decode_compressed(data: Any) -> Image:
    """Gives the pixels of a ``sensor_msgs/CompressedImage``, one of `COMPRESSED`.

    Returns:
        uint8 or uint16, (height, width, 3) in RGB order or (height, width).

    Raises:
        ValueError: the data are not an image, or claim more than `MOST_PIXELS`, for which no
            memory is taken.
    """
    raw = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    what = f"compressed image data ({raw.size} bytes)"
    try:
        with PIL.Image.open(io.BytesIO(raw.data), formats=COMPRESSED) as header:
            width, height = header.size
            header.verify()  # OpenCV takes the memory that the parts of a PNG claim to need
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{what} claim more pixels than cameras have: {error}") from None
    except Exception:  # it has many kinds
        raise ValueError(
            f"{what} cannot be decoded: damaged, or none of {', '.join(COMPRESSED)}"
        ) from None
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"{what} claim {width}x{height} pixels, more than the {MOST_PIXELS} that are decoded"
        )
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"{what} cannot be decoded: {error}") from None
    if image is None:
        raise ValueError(f"{what} cannot be decoded")
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{what} hold {image.dtype} pixels: convert them to 8 or 16 bit")
    return from_opencv(image)


def from_opencv(image: Image) -> Image:
    """Turns OpenCV's BGR(A) into RGB (a view); one-channel images are returned as they are."""
    return image[..., 2::-1] if image.ndim == 3 else image


def to_rgb(image: Image) -> Image:
    """Gives a colour stream's image three channels.

    Args:
        image: uint8 (height, width) or (height, width, 3).

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: the pixels are not 8 bit.
    """
    if image.dtype != np.uint8:
        raise ValueError(
            f"the RGB stream has {image.dtype} pixels; it must be 8 bit "
            "(are the two streams exchanged?)"
        )
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
