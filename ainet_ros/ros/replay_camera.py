# SPDX-License-Identifier: Apache-2.0
"""The node `replay_camera`: a recording, or a generated scene, as two camera topics.

Beside the images it publishes `~/frame` (std_msgs/Header): the stamp of each RGB image and, as
its frame_id, the name of the source's frame that it shows. It ends with its source unless it
loops.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from ainet_ros.ros.images import to_compressed, to_image
from ainet_ros.ros.parameters import CameraParameters, declare, describe
from ainet_ros.vision.scenes import Scene
from ainet_ros.vision.sources import Frame, Source, open_source

COUNTS_OF_BLACK = 10_000
COUNTS_PER_GREY = 20
"""How 8-bit thermal recordings become raw counts, about those of an uncooled camera."""
LINGER_S = 0.5
"""So long the node stays after its last image, which else may not arrive."""


class Stream(NamedTuple):
    """What one of the two cameras publishes."""

    publisher: Any
    encoding: str
    compression: str
    """jpeg or png; empty: raw."""
    frame_id: str


class ReplayCamera(Node):
    """Two cameras whose images come from a source."""

    def __init__(self, **kwargs: Any) -> None:
        """Raises ValueError or OSError for a wrong parameter or source."""
        super().__init__("replay_camera", **kwargs)
        self._values = declare(self, CameraParameters)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        parameters = self._values
        rate = parameters.rate or None
        self.source: Source = (
            open_source(parameters.source, rate=rate)
            if parameters.source
            else Scene(parameters.seed)
        )
        self._period = 1 / (rate or self.source.rate)
        self._random = np.random.default_rng(parameters.seed)
        self._rgb = self._stream(
            "rgb/image_raw",
            parameters.rgb_transport,
            "jpeg",
            parameters.rgb_encoding,
            parameters.rgb_frame,
        )
        self._thermal = self._stream(
            "thermal/image_raw",
            parameters.thermal_transport,
            "png",
            parameters.thermal_encoding,
            parameters.thermal_frame,
        )
        self._names = self.create_publisher(Header, "~/frame", 100)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self.get_logger().info(
            f"{self.source.name}: {len(self.source)} pairs at {1 / self._period:g} Hz"
        )

    def play(self) -> None:
        """Publish until the source ends, answering parameter requests meanwhile.

        Raises ValueError where the recording does not go into the encodings asked for.
        """
        waiting: list[tuple[float, int, Stream, npt.NDArray[Any], str]] = []  # a heap by time
        numbers = itertools.count()
        due = time.monotonic()
        for frame in self._frames():
            offsets = (0.0, self._values.thermal_offset)
            images = (frame.rgb, self._encoded_thermal(frame.thermal))
            for stream, offset, image in zip(
                (self._rgb, self._thermal), offsets, images, strict=True
            ):
                when = due + offset + self._jitter()
                heapq.heappush(waiting, (when, next(numbers), stream, image, frame.name))
            due = max(due + self._period, time.monotonic())
            self._publish_until(due - self._period / 2, waiting)
        self._publish_until(float("inf"), waiting)
        self.get_logger().info("the source has ended")
        self._spin_until(time.monotonic() + LINGER_S)

    def _frames(self) -> Iterator[Frame]:
        """The source's frames, over and over with `loop`, each repeated while `paused`."""
        while True:
            for frame in self.source:
                yield frame
                while self._values.paused:
                    yield frame
            if not self._values.loop:
                return

    def _jitter(self) -> float:
        """Seconds; held within half a period, so that the images stay in order."""
        limit = 0.45 * self._period
        return float(np.clip(self._random.normal(0, self._values.jitter), -limit, limit))

    def _encoded_thermal(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        encoding = self._values.thermal_encoding
        if encoding in ("mono16", "16UC1"):
            if image.dtype == np.uint8:
                grey = image if image.ndim == 2 else image[..., 1]
                return (COUNTS_OF_BLACK + COUNTS_PER_GREY * grey.astype(np.uint16)).astype(
                    np.uint16
                )
            return image
        if image.dtype != np.uint8:
            raise ValueError(
                f"thermal_encoding {encoding} holds 8-bit images and {self.source.name} has "
                f"{image.dtype}: set it to mono16"
            )
        if encoding == "8UC3":
            return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        return image if image.ndim == 2 else image[..., 1]

    def _publish_until(self, end: float, waiting: list[Any]) -> None:
        """Publish what is due before `end` (`time.monotonic`), each at its time."""
        while waiting and waiting[0][0] <= end:
            due, _, stream, image, name = heapq.heappop(waiting)
            self._spin_until(due)
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id=stream.frame_id)
            if stream is self._rgb:
                self._names.publish(Header(stamp=header.stamp, frame_id=name))
            stream.publisher.publish(
                to_compressed(image, stream.compression, header)
                if stream.compression
                else to_image(image, stream.encoding, header)
            )

    def _spin_until(self, when: float) -> None:
        while True:
            left = when - time.monotonic()
            self._executor.spin_once(timeout_sec=max(left, 0.0))
            if left <= 0:
                return

    def _stream(
        self, topic: str, transport: str, compression: str, encoding: str, frame_id: str
    ) -> Stream:
        # Reliable, depth 5: subscribers of either kind are served.
        if transport == "compressed":
            publisher = self.create_publisher(CompressedImage, f"{topic}/compressed", 5)
            return Stream(publisher, encoding, compression, frame_id)
        return Stream(self.create_publisher(Image, topic, 5), encoding, "", frame_id)

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        known = describe(CameraParameters)
        values = {change.name: change.value for change in changes if change.name in known}
        try:
            self._values = dataclasses.replace(self._values, **values)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def main(args: list[str] | None = None) -> int:
    """Run the node until its source ends, Ctrl-C or SIGTERM. Returns the exit status."""
    rclpy.init(args=args)
    status = 0
    try:
        ReplayCamera().play()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, OSError) as error:
        get_logger("replay_camera").fatal(str(error))
        status = 1
    finally:
        rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
