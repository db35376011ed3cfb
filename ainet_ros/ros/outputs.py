# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the node `ainet` publishes of each pair of images, and of its targets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Vector3, Vector3Stamped
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64, Header

from ainet_ros.msg import Event, StageLatency
from ainet_ros.msg import Track as TrackMessage
from ainet_ros.tracker import State, Track
from ainet_ros.vision.encoding import to_rgb
from ainet_ros.vision.overlay import draw

from . import messages
from .bearing import ray
from .engine import Images, Started
from .images import to_compressed, to_image
from .pairing import Pair
from .qos import create_publisher

DEPTH = 10
"""Of the queues of results, and of requests that nobody waits for."""
REPEAT_S = 30.0
"""Least time between two warnings of the same kind."""


class Outputs:
    """The publishers of the thread that tracks. Headers are those of the RGB images."""

    def __init__(self, node: Node) -> None:
        """Raises ValueError where a parameter overrides the quality of service wrongly."""
        self._logger = node.get_logger()
        self._track = create_publisher(node, TrackMessage, "~/track", DEPTH)
        self._event = create_publisher(node, Event, "~/events", DEPTH)
        self._detections = None
        if messages.vision_msgs is not None:
            self._detections = create_publisher(
                node, messages.vision_msgs.Detection2DArray, "~/detections", DEPTH
            )
        self._bearing = create_publisher(node, Vector3Stamped, "~/bearing", DEPTH)
        self._times = {
            name: create_publisher(node, Float64, f"~/debug/{name}", DEPTH)
            for name in ("processing_time_ms", "pipeline_latency_ms")
        }
        self._overlay = create_publisher(node, Image, "~/overlay", 1)
        self._compressed = create_publisher(node, CompressedImage, "~/overlay/compressed", 1)
        self._overlay_slot = 0.0

    def tracks(
        self,
        header: Header,
        pair: Pair,
        size: tuple[int, int],
        tracks: Mapping[int, Track],
        latency: StageLatency,
    ) -> None:
        """Where the targets are, by their ids. size: width and height of the RGB image."""
        for message in messages.track_messages(
            header, _thermal_stamp(pair), size, tracks, latency, degraded=pair.degraded
        ):
            self._track.publish(message)

    def started(self, header: Header, pair: Pair, started: Started) -> None:
        """A target was started in this pair, perhaps in the place of others."""
        self.event(Event.RESET, header, dict.fromkeys(started.replaced, 0.0))
        self._event.publish(
            Event(
                header=header,
                target_id=started.target_id,
                event=Event.INIT,
                thermal_stamp=_thermal_stamp(pair),
                degraded=pair.degraded,
                box=messages.box_message(started.box),
            )
        )

    def changed(self, header: Header, tracks: Mapping[int, Track]) -> None:
        """These targets are LOST or found since the last pair."""
        for state, event in ((State.LOST, Event.LOST), (State.TRACKING, Event.FOUND)):
            scores = {k: messages.finite_score(t) for k, t in tracks.items() if t.state is state}
            self.event(event, header, scores)

    def event(self, event: int, header: Header, scores: Mapping[int, float]) -> None:
        """scores: by the ids of the targets that it happened to."""
        for target_id, score in scores.items():
            self._event.publish(
                Event(header=header, target_id=target_id, event=event, score=score)
            )

    def detections(self, header: Header, tracks: Mapping[int, Track]) -> None:
        """The same as `tracks` for other nodes, where vision_msgs is installed."""
        if self._detections is not None and self._detections.get_subscription_count():
            self._detections.publish(messages.detections_message(header, tracks))

    def bearing(
        self,
        header: Header,
        size: tuple[int, int],
        tracks: Mapping[int, Track],
        info: CameraInfo | None,
        *,
        rectified: bool,
    ) -> None:
        """Where the oldest target is that is TRACKING, if the camera is calibrated."""
        track = next((t for t in tracks.values() if t.state is State.TRACKING), None)
        if track is None or info is None or not self._bearing.get_subscription_count():
            return
        x, y, width, height = track.box
        trouble = "no ~/bearing: the camera's camera_info holds no calibration"
        try:
            direction = ray(info, size, x + width / 2, y + height / 2, rectified=rectified)
        except ValueError as error:
            direction, trouble = None, f"no ~/bearing: {error}"
        if direction is None:
            self._logger.warning(trouble, throttle_duration_sec=REPEAT_S)
            return
        x, y, z = direction
        self._bearing.publish(Vector3Stamped(header=header, vector=Vector3(x=x, y=y, z=z)))

    def times(self, **times: float) -> None:
        """Milliseconds, by the topic's name."""
        for name, milliseconds in times.items():
            publisher = self._times[name]
            if publisher.get_subscription_count():
                publisher.publish(Float64(data=milliseconds))

    def overlay_is_due(self, rate: float) -> bool:
        """Whether somebody looks, and it is time for the next picture. rate: most of them in a
        second; 0 is any number."""
        watched = (
            self._overlay.get_subscription_count() + self._compressed.get_subscription_count()
        )
        now, period = time.monotonic(), 1 / rate if rate else 0.0
        due = self._overlay_slot + period
        if not watched or now < due:
            return False
        # Counted from when it was due, so that the rate holds although pairs come as they will.
        self._overlay_slot = max(due, now - period)
        return True

    def overlay(
        self,
        header: Header,
        pair: Pair,
        tracks: Mapping[int, Track],
        images: Images,
        style: str,
        quality: int,
    ) -> None:
        """Boxes and states drawn into the pair. images: as tracked through; style: of
        `overlay.STYLES`; quality: of the JPEG, 1 to 100."""
        rgb, thermal = images
        if pair.rgb is None:
            picture = draw(to_rgb(thermal), tracks, note="DEGRADED: no RGB")
        elif pair.thermal is None:
            picture = draw(rgb, tracks, note="DEGRADED: no thermal")
        else:
            picture = draw(rgb, tracks, thermal, style=style)
        if self._overlay.get_subscription_count():
            self._overlay.publish(to_image(picture, "rgb8", header))
        if self._compressed.get_subscription_count():
            self._compressed.publish(to_compressed(picture, "jpeg", header, quality))


def _thermal_stamp(pair: Pair) -> Any:
    """Of the thermal image; 0 where its camera is silent."""
    return Time() if pair.thermal is None else pair.thermal.header.stamp
