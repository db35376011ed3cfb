# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The node `recorder`: writes the pairs that the tracker answered, its answers and its events.

It listens as the tracker does, in a process of its own, and keeps images until an answer names
them. Messages are written as they came, under the names that the tracker knows their topics by,
whatever they are remapped to. The tracker's parameters go beside them, as a parameter file; their
changes go into the bag.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.clock import Clock, ClockType
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo

from ainet_ros.msg import Event, Track
from ainet_ros.vision.encoding import stamp_ns

from .camera import Camera
from .process import ignore_interrupts, ros, spin
from .qos import create_publisher, profile
from .recording import RecorderParameters, UnansweredImages
from .table import MEGABYTE, declare

TRACKER = "ainet"
DEPTH = 100
"""Of the answers and events, which must not be lost."""
REPORT_PERIOD_S = 1.0
ANSWER_S = 5.0
"""So long an answer may take; a target may besides be started on images that are history_s old."""
ASK_AGAIN_S = 10.0
LOSS_S = 10.0
"""So long a loss is a WARN in /diagnostics."""
REPEAT_S = 30.0
"""Least time between two messages of the same kind in the log."""
CLOSE_S = 2.0
"""For what waits to be written at the end."""


def serialized_stamp_ns(message: bytes) -> int:
    """The stamp of a serialized message that begins with a header."""
    order = "<" if message[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", message, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class Recorder(Node):
    """Records from the tracker's first answer on."""

    def __init__(self, **kwargs: Any) -> None:
        """Raises ValueError for a wrong parameter, or where rosbags is not installed."""
        super().__init__("recorder", **kwargs)
        values = declare(self, RecorderParameters)
        if not values.folder:
            raise ValueError("folder: say where to record")
        try:
            from ainet_ros.vision.bag import typestore

            from .parts import Message, PartWriter, Topic
        except ModuleNotFoundError as error:
            raise ValueError(
                f"recordings are written by the package rosbags: pip install rosbags ({error})"
            ) from error
        self._message, self._topic = Message, Topic
        self._writer = PartWriter(values, typestore())
        self._images = UnansweredImages(ANSWER_S, values.memory_mb * MEGABYTE)
        self._cameras: list[Camera] = []
        self._listen_to_cameras((values.rgb_transport, values.thermal_transport))
        self._answers = 0  # since the last camera_info
        self._told = False  # the tracker's parameters
        self._kept = False  # they lie beside what is recorded
        self._started = False  # a target
        self._asked: Future[Any] | None = None
        self._ask_again_at = 0.0
        self._said = self._writer.status
        self._lost = 0
        self._lost_at = float("-inf")
        self._diagnostics_publisher = create_publisher(self, DiagnosticArray, "/diagnostics", 10)
        self._list = self.create_client(ListParameters, f"{TRACKER}/list_parameters")
        self._get = self.create_client(GetParameters, f"{TRACKER}/get_parameters")
        self._listen(Track, f"{TRACKER}/track", self._on_track, profile(DEPTH))
        self._listen(Event, f"{TRACKER}/events", self._on_event, profile(DEPTH))
        self._listen(ParameterEvent, "/parameter_events", self._on_parameter_event, profile(DEPTH))
        self._listen(
            CameraInfo,
            "rgb/camera_info",
            self._on_camera_info,
            profile(1, ReliabilityPolicy.BEST_EFFORT),
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)

    def follow(self) -> None:
        """What is to be done between two callbacks."""
        self._ask_for_parameters()
        for camera in self._cameras:
            camera.follow()

    def close(self) -> None:
        """Complete the recording."""
        self._writer.close(CLOSE_S)
        status = self._writer.status
        # Not the node's: its log goes to /rosout too, which is no more.
        get_logger("recording").info(
            f"recorded {status.bytes / MEGABYTE:.0f} MB: {status.run or 'no answer came'}"
        )

    def _listen(
        self,
        kind: type,
        name: str,
        callback: Callable[[bytes, Callable[[bytes], None]], None],
        quality: QoSProfile,
    ) -> None:
        """callback: takes a serialized message, and what writes it into the bag."""
        topic = self._topic_of(kind, name)

        def write(data: bytes) -> None:
            self._writer.put([self._message(topic, data)])

        self.create_subscription(kind, name, lambda data: callback(data, write), quality, raw=True)

    def _listen_to_cameras(self, transports: tuple[str, str]) -> None:
        for camera in self._cameras:
            camera.destroy()
        self._transports = transports
        self._cameras = [
            Camera(self, f"{name}/image_raw", transport, serialized=True)
            for name, transport in zip(("rgb", "thermal"), transports, strict=True)
        ]
        self._image_topics = [self._topic_of(camera.type, camera.name) for camera in self._cameras]
        for side, camera in enumerate(self._cameras):
            camera.registerCallback(self._on_image, side)
        topics = " and ".join(camera.topic for camera in self._cameras)
        self.get_logger().info(f"listening to {topics}")

    def _topic_of(self, kind: type, name: str) -> Any:
        package, *_ = kind.__module__.split(".")
        before_remapping = self.resolve_topic_name(name, only_expand=True)
        return self._topic(before_remapping, f"{package}/msg/{kind.__name__}")

    # The tracker's parameters

    def _ask_for_parameters(self) -> None:
        """Ask, until there is an answer, and once more where the tracker has come anew."""
        if not (self._list.service_is_ready() and self._get.service_is_ready()):
            self._asked, self._told = None, False
            return
        # One that was killed seems to be there for seconds, and never answers.
        if self._told or (self._asked is not None and time.monotonic() < self._ask_again_at):
            return
        self._ask_again_at = time.monotonic() + ASK_AGAIN_S
        self._asked = self._list.call_async(ListParameters.Request(depth=1))
        self._asked.add_done_callback(self._on_names)

    def _on_names(self, answer: Future[Any]) -> None:
        if answer != self._asked:
            return  # of a question that was asked again meanwhile
        names = sorted(answer.result().result.names)
        self._asked = self._get.call_async(GetParameters.Request(names=names))
        self._asked.add_done_callback(partial(self._on_values, names))

    def _on_values(self, names: list[str], answer: Future[Any]) -> None:
        if answer != self._asked:
            return
        values = map(parameter_value_to_python, answer.result().values)
        parameters = dict(zip(names, values, strict=True))
        if not (self._kept and self._started):  # those that the first target is tracked with
            self._kept = True
            text = yaml.safe_dump({"/**": {"ros__parameters": parameters}})
            self._writer.keep_parameters(text)
        self._images.seconds = ANSWER_S + parameters["history_s"]
        transports = (parameters["rgb_transport"], parameters["thermal_transport"])
        if transports != self._transports:
            self._listen_to_cameras(transports)
        self._told = True
        self.get_logger().info("ready: the tracker has told its parameters")

    def _on_parameter_event(self, data: bytes, write: Callable[[bytes], None]) -> None:
        event = deserialize_message(data, ParameterEvent)
        if f"{event.node}/get_parameters" != self.resolve_service_name(
            f"{TRACKER}/get_parameters"
        ):
            return
        if event.changed_parameters:
            write(data)
        for change in event.changed_parameters:
            if change.name == "history_s":
                self._images.seconds = ANSWER_S + parameter_value_to_python(change.value)

    # The pairs

    def _on_image(self, data: bytes, side: int) -> None:
        image = self._images.add((side, serialized_stamp_ns(data)), data, time.monotonic())
        if image is not None:
            self._put_images({side: image})

    def _on_camera_info(self, data: bytes, write: Callable[[bytes], None]) -> None:
        if self._answers:
            self._answers = 0
            write(data)

    def _on_track(self, data: bytes, write: Callable[[bytes], None]) -> None:
        track = deserialize_message(data, Track)
        self._name_images(track)
        self._answers += 1
        write(data)

    def _on_event(self, data: bytes, write: Callable[[bytes], None]) -> None:
        event = deserialize_message(data, Event)
        if event.event == Event.INIT:
            self._started = True
            self._name_images(event)
        write(data)

    def _name_images(self, answer: Track | Event) -> None:
        """Write the images of a pair, or the one that there is."""
        now = time.monotonic()
        rgb, thermal = stamp_ns(answer.header.stamp), stamp_ns(answer.thermal_stamp)
        if answer.degraded and thermal:
            rgb = 0
        found = {
            side: self._images.name((side, stamp), now)
            for side, stamp in enumerate((rgb, thermal))
            if stamp
        }
        self._put_images({side: image for side, image in found.items() if image is not None})

    def _put_images(self, images: dict[int, bytes]) -> None:
        if images:
            messages = [
                self._message(self._image_topics[side], image) for side, image in images.items()
            ]
            self._writer.put(messages, images=True)

    # What is said of it

    def _report(self) -> None:
        self._images.forget(time.monotonic())
        status, said = self._writer.status, self._said
        self._said = status
        log = self.get_logger()
        if status.run != said.run:
            log.info(f"recording into {status.run}")
        if status.trouble:
            log.error(f"not recording: {status.trouble}", throttle_duration_sec=REPEAT_S)
        elif said.trouble:
            log.info("recording again")
        lost = status.dropped + self._images.missing
        if lost > self._lost:
            self._lost, self._lost_at = lost, time.monotonic()
            log.warning(self._losses(status), throttle_duration_sec=REPEAT_S)
        level, message = DiagnosticStatus.OK, "waiting for the tracker"
        if status.trouble:
            level, message = DiagnosticStatus.ERROR, f"not recording: {status.trouble}"
        elif time.monotonic() - self._lost_at < LOSS_S:
            level, message = DiagnosticStatus.WARN, self._losses(status)
        elif status.run is not None:
            message = f"recording into {status.run}"
        values = {
            "folder": status.run or "",
            "parts": status.parts,
            "messages": status.messages,
            "images": self._images.given,
            "written (MB)": f"{status.bytes / MEGABYTE:.1f}",
            "messages dropped": status.dropped,
            "images missing": self._images.missing,
        }
        diagnostics = DiagnosticArray(
            status=[
                DiagnosticStatus(
                    level=level,
                    name=f"{self.get_fully_qualified_name().lstrip('/')}: recording",
                    message=message,
                    values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
                )
            ]
        )
        diagnostics.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(diagnostics)

    def _losses(self, status: Any) -> str:
        return (
            f"{status.dropped} messages were not written, the disk is too slow or cannot be "
            f"written; {self._images.missing} images of answered pairs did not come or were not "
            "kept: see memory_mb"
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM. Returns the exit status."""
    status = 0
    with ros(args):
        recorder: Recorder | None = None
        try:
            recorder = Recorder()
            spin(recorder, recorder.follow)
        except ValueError as error:
            get_logger("recorder").fatal(str(error))
            status = 1
        finally:
            ignore_interrupts()
            if recorder is not None:
                recorder.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
