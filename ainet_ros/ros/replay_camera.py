# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The node `replay_camera`: a recording, or a generated scene, as two camera topics.

Beside the images it publishes `~/frame` (std_msgs/Header): the stamp of each RGB image and, as
its frame_id, the number of the source's frame that it shows, from 0. It ends with its source
unless it loops.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time as TimeMessage
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.serialization import serialize_message
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from ainet_ros.vision.scenes import Scene
from ainet_ros.vision.sources import Frame, Source, open_source

from .images import to_compressed, to_image
from .process import ros, spin_once
from .table import Table, declare, parameter, updated

COUNTS_OF_BLACK = 10_000
COUNTS_PER_GREY = 20
"""How 8-bit thermal recordings become raw counts, about those of an uncooled camera."""
SLEEP_S = 0.002
"""Before an image is due nothing else is done for so long, which would make it late."""
LINGER_S = 0.5
"""So long the node stays after its last image, which else may not arrive."""


@dataclass(frozen=True)
class CameraParameters(Table):
    """Parameters of `replay_camera`."""

    source: str = parameter(
        "",
        "Recording to publish: a folder or video pair, or a rosbag2 bag; empty: a generated "
        "scene.",
        read_only=True,
    )
    seed: int = parameter(0, "Seed of the generated scene.", limits=(0, 2**31 - 1), read_only=True)
    rate: float = parameter(
        0.0,
        "Pairs a second; 0: the recording's own rate.",
        unit="Hz",
        limits=(0.0, 1000.0),
        read_only=True,
    )
    thermal_offset: float = parameter(
        0.0,
        "Thermal images come later than the RGB images by this, in stamp and in time.",
        unit="s",
        limits=(0.0, 10.0),
        read_only=True,
    )
    jitter: float = parameter(
        0.0,
        "Standard deviation of the stamps and times around their rhythm.",
        unit="s",
        limits=(0.0, 1.0),
        read_only=True,
    )
    loop: bool = parameter(False, "Begin again at the end.")
    paused: bool = parameter(False, "Repeat the present pair, with new stamps.")
    rgb_transport: str = parameter(
        "raw",
        "raw publishes rgb/image_raw, compressed publishes rgb/image_raw/compressed (JPEG).",
        choices=("raw", "compressed"),
        read_only=True,
    )
    thermal_transport: str = parameter(
        "raw",
        "The same for thermal/image_raw (PNG).",
        choices=("raw", "compressed"),
        read_only=True,
    )
    rgb_encoding: str = parameter(
        "rgb8", "Of raw RGB images.", choices=("rgb8", "bgr8", "rgba8", "bgra8"), read_only=True
    )
    thermal_encoding: str = parameter(
        "auto",
        "Of thermal images; auto: as they are recorded. In mono16 and 16UC1 8-bit recordings "
        "become counts of 10000 + 20 times the grey value.",
        choices=("auto", "mono8", "8UC3", "mono16", "16UC1"),
        read_only=True,
    )
    rgb_frame: str = parameter("rgb_optical_frame", "frame_id of RGB images.", read_only=True)
    thermal_frame: str = parameter(
        "thermal_optical_frame", "frame_id of thermal images.", read_only=True
    )


class Shot(NamedTuple):
    """Messages to be published; shots sort by their time."""

    due: float
    """`time.monotonic`."""
    order: int
    """Among those of the same time."""
    messages: list[tuple[Publisher[Any], bytes]]
    """Serialized, so that they leave at their time as a driver's would: a second camera in Python
    would wait for the first one's image to be turned into bytes."""


def thermal_as(image: npt.NDArray[Any], encoding: str) -> tuple[npt.NDArray[Any], str]:
    """A thermal image's pixels and encoding, for the parameter thermal_encoding.

    Raises ValueError for 16-bit pixels in an 8-bit encoding.
    """
    grey = image if image.ndim == 2 else image[..., 1]
    if encoding == "auto":
        if image.dtype == np.uint16:
            return image, "mono16"
        return image, "mono8" if image.ndim == 2 else "rgb8"
    if encoding in ("mono16", "16UC1"):
        if image.dtype == np.uint8:
            grey = COUNTS_OF_BLACK + COUNTS_PER_GREY * grey.astype(np.uint16)
        return grey, encoding
    if image.dtype != np.uint8:
        raise ValueError(
            f"thermal_encoding {encoding} holds 8-bit images and the recording has "
            f"{image.dtype}: set it to auto or mono16"
        )
    if encoding == "8UC3":
        return np.repeat(grey[..., None], 3, axis=2), encoding
    return grey, encoding


class ReplayCamera(Node):
    """Two cameras whose images come from a source."""

    def __init__(self, **kwargs: Any) -> None:
        """Raises ValueError or OSError for a wrong parameter or source."""
        super().__init__("replay_camera", **kwargs)
        self._values = declare(self, CameraParameters)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        values = self._values
        rate = values.rate or None
        self.source: Source = (
            open_source(values.source, rate=rate) if values.source else Scene(values.seed)
        )
        self._period = 1 / (rate or self.source.rate)
        self._random = np.random.default_rng(values.seed)
        self._rgb_publisher = self._camera_publisher("rgb/image_raw", values.rgb_transport)
        self._thermal_publisher = self._camera_publisher(
            "thermal/image_raw", values.thermal_transport
        )
        self._frame_publisher = self.create_publisher(Header, "~/frame", 100)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self.get_logger().info(
            f"{self.source.name}: {len(self.source)} pairs at {1 / self._period:g} Hz"
        )

    def play(self) -> None:
        """Publish until the source ends, answering parameter requests meanwhile.

        Raises ValueError where the recording does not go into the encodings asked for.
        """
        waiting: list[Shot] = []  # a heap by time
        due = time.monotonic()
        for number, frame in self._frames():
            now_ns, now = self.get_clock().now().nanoseconds, time.monotonic()
            for order, (offset, messages) in enumerate(
                (
                    # The smaller first where both are due: it travels while the other is sent.
                    (self._values.thermal_offset, partial(self._thermal_messages, frame.thermal)),
                    (0.0, partial(self._rgb_messages, frame.rgb, number)),
                )
            ):
                shot_due = due + offset + self._jitter()
                # The stamp is when it is due, so that an offset of 0 gives equal stamps.
                # Simulated time is 0 until /clock comes.
                ahead_ns = round((shot_due - now) * 1e9)
                stamp = Time(nanoseconds=max(0, now_ns + ahead_ns)).to_msg()
                shot = [(to, serialize_message(message)) for to, message in messages(stamp)]
                heapq.heappush(waiting, Shot(shot_due, order, shot))
            due = max(due + self._period, time.monotonic())
            spin_once(self, self._executor, 0.0)  # where there is no time, requests are heard
            self._publish_until(due - self._period / 2, waiting)
        self._publish_until(float("inf"), waiting)
        self.get_logger().info("the source has ended")
        self._spin_until(time.monotonic() + LINGER_S)

    def _frames(self) -> Iterator[tuple[int, Frame]]:
        """The source's frames, over and over with `loop`, each repeated while `paused`."""
        while True:
            for number, frame in enumerate(self.source):
                yield number, frame
                while self._values.paused:
                    yield number, frame
            if not self._values.loop:
                return

    def _jitter(self) -> float:
        """Seconds; held within half a period, so that the images stay in order."""
        limit = 0.45 * self._period
        return float(np.clip(self._random.normal(0, self._values.jitter), -limit, limit))

    def _publish_until(self, end: float, waiting: list[Shot]) -> None:
        """Publish what is due before `end` (`time.monotonic`), each at its time."""
        while waiting and waiting[0].due <= end:
            shot = heapq.heappop(waiting)
            self._spin_until(shot.due - SLEEP_S)
            time.sleep(max(0.0, shot.due - time.monotonic()))
            for publisher, message in shot.messages:
                publisher.publish(message)

    def _rgb_messages(
        self, image: npt.NDArray[Any], number: int, stamp: TimeMessage
    ) -> list[tuple[Publisher[Any], Any]]:
        values = self._values
        header = Header(stamp=stamp, frame_id=values.rgb_frame)
        if values.rgb_transport == "compressed":
            message: Any = to_compressed(image, "jpeg", header)
        else:
            message = to_image(image, values.rgb_encoding, header)
        frame = Header(stamp=stamp, frame_id=str(number))
        return [(self._rgb_publisher, message), (self._frame_publisher, frame)]

    def _thermal_messages(
        self, image: npt.NDArray[Any], stamp: TimeMessage
    ) -> list[tuple[Publisher[Any], Any]]:
        values = self._values
        header = Header(stamp=stamp, frame_id=values.thermal_frame)
        pixels, encoding = thermal_as(image, values.thermal_encoding)
        if values.thermal_transport == "compressed":
            message: Any = to_compressed(pixels, "png", header)
        else:
            message = to_image(pixels, encoding, header)
        return [(self._thermal_publisher, message)]

    def _spin_until(self, when: float) -> None:
        while (left := when - time.monotonic()) > 0:
            spin_once(self, self._executor, left)

    def _camera_publisher(self, topic: str, transport: str) -> Any:
        # Reliable, depth 5: subscribers of either kind are served.
        if transport == "compressed":
            return self.create_publisher(CompressedImage, f"{topic}/compressed", 5)
        return self.create_publisher(Image, topic, 5)

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self._values = updated(self._values, changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def main(args: list[str] | None = None) -> int:
    """Run the node until its source ends, Ctrl-C or SIGTERM. Returns the exit status."""
    status = 0
    with ros(args):
        try:
            ReplayCamera().play()
        except (ValueError, OSError) as error:
            get_logger("replay_camera").fatal(str(error))
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
