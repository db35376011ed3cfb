# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Image messages to and from arrays.

cv_bridge decodes where it is installed and works, `vision.encoding` otherwise; of the encodings
that both know they give the same pixels. `vision.encoding` also serves where cv_bridge cannot:
rows padded by less than a pixel (cv_bridge shears them) and big-endian data (it fails with
NumPy 2). It encodes, too.
"""

from __future__ import annotations

import array
import functools
import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage, Image

from ainet_ros.vision import encoding

if TYPE_CHECKING:
    from std_msgs.msg import Header

Pixels = npt.NDArray[Any]

# A cv_bridge built for another NumPy or OpenCV fails on import or brings the process down, so it
# is tried in a process of its own.
_PROBE = """
import numpy, cv_bridge
from sensor_msgs.msg import Image
image = Image(height=1, width=2, step=6, encoding="bgr8", data=bytes(range(6)))
pixels = cv_bridge.CvBridge().imgmsg_to_cv2(image, "rgb8")
assert pixels.tolist() == [[[2, 1, 0], [5, 4, 3]]]
"""


@functools.cache
def cv_bridge() -> Any | None:
    """The CvBridge to decode with; None where cv_bridge is absent or does not work."""
    if importlib.util.find_spec("cv_bridge") is None:
        return None
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=60)
    if probe.returncode != 0:
        return None
    from cv_bridge import CvBridge

    return CvBridge()


def decode(message: Image | CompressedImage) -> Pixels:
    """The pixels of a message: uint8 (H, W, 3) in RGB order, or (H, W) of uint8 or uint16.

    The result may be a read-only view of the message's data.

    Raises:
        ValueError: the encoding is unknown, or the data are not an image of it.
    """
    if isinstance(message, CompressedImage):
        return encoding.decode_compressed(message.data)
    bridge = cv_bridge()
    if bridge is not None and _suits(bridge, message):
        # Encodings that name no colours are not converted, else cv_bridge refuses.
        plain = message.encoding in ("mono8", "mono16") or "C" in message.encoding
        try:
            return bridge.imgmsg_to_cv2(message, "passthrough" if plain else "rgb8")
        except Exception as error:  # it raises several kinds
            raise ValueError(f"cv_bridge cannot decode {message.encoding}: {error}") from error
    return encoding.decode_image(message)


def _suits(bridge: Any, message: Image) -> bool:
    """Whether cv_bridge gives the right pixels of this message."""
    if message.is_bigendian:
        return False
    try:
        kind, channels = bridge.encoding_to_dtype_with_channels(message.encoding)
    except Exception:  # its own, boost's, or KeyError: an encoding unknown to it
        return False
    pixel = np.dtype(kind).itemsize * channels
    fits = message.width > 0 and message.height > 0 and message.step >= message.width * pixel
    return bool(
        fits and message.step % pixel == 0 and len(message.data) >= message.step * message.height
    )


def to_image(pixels: Pixels, name: str, header: Header) -> Image:
    """A message of an array (RGB order where coloured) in the encoding `name`."""
    data, step = encoding.encode(pixels, name)
    message = Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=name,
        is_bigendian=0,
        step=step,
    )
    message.data = array.array("B", data)  # other types are checked item by item, and slowly
    return message


def to_compressed(pixels: Pixels, kind: str, header: Header, quality: int = 90) -> CompressedImage:
    """A JPEG (`kind` "jpeg", with `quality` 1..100) or PNG ("png") message of an array.

    Raises:
        ValueError: the pixels do not go into the format (16 bit into JPEG).
    """
    if kind == "jpeg" and pixels.dtype != np.uint8:
        raise ValueError(f"JPEG holds 8-bit pixels, not {pixels.dtype}: use png")
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV writes BGR
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpeg" else []
    done, data = cv2.imencode(f".{kind}", stored, options)
    if not done:
        raise ValueError(f"an image of {pixels.shape} {pixels.dtype} cannot be written as {kind}")
    message = CompressedImage(header=header, format=kind)
    message.data = array.array("B", data.tobytes())
    return message
