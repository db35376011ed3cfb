# SPDX-License-Identifier: Apache-2.0
"""A camera's topic, subscribed as reliably as the camera publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from ainet_ros.ros.filters import SimpleFilter, Subscriber

if TYPE_CHECKING:
    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node

DEPTH = 5
FOLLOW_PERIOD_S = 0.1


class Camera(SimpleFilter):  # type: ignore[misc]
    """Passes on the images of a topic, from the present set of its publishers.

    A best-effort subscription hears every kind of camera, but without tuning DDS loses many of
    the larger images even within one machine: a tenth at 640x480, nine tenths at 1920x1080. So
    the subscription is best effort until publishers are seen, and reliable while all of them are.

    Args:
        transport: raw or compressed, which adds /compressed to the topic.
        group: a mutually exclusive group; messages and checks run in it.
    """

    def __init__(self, node: Node, topic: str, transport: str, group: CallbackGroup) -> None:
        super().__init__()
        compressed = transport == "compressed"
        self._node = node
        self._group = group
        self._type = CompressedImage if compressed else Image
        self._relative = f"{topic}/compressed" if compressed else topic
        self._subscribers: list[Subscriber] = []  # the newest last
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._subscribe()
        self.topic = self._subscribers[0].sub.topic_name
        """With its namespace, remapped."""
        self._timer = node.create_timer(FOLLOW_PERIOD_S, self._follow, callback_group=group)

    def destroy(self) -> None:
        """Stop listening."""
        self._node.destroy_timer(self._timer)
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers.clear()

    def _subscribe(self) -> None:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=DEPTH, reliability=self._reliability
        )
        subscriber = Subscriber(
            self._node,
            self._type,
            self._relative,
            qos_profile=qos,
            callback_group=self._group,
        )
        subscriber.registerCallback(self._on_image, subscriber)
        self._subscribers.append(subscriber)

    def _follow(self) -> None:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return
        reliable = all(
            publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            for publisher in publishers
        )
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if wanted != self._reliability:
            self._reliability = wanted
            self._subscribe()

    def _on_image(self, message: Any, subscriber: Subscriber) -> None:
        if subscriber is self._subscribers[-1]:
            # It hears the cameras: those before it have served. Until here images may come
            # twice, which the pairing takes for late ones; none is missed.
            for former in self._subscribers[:-1]:
                self._node.destroy_subscription(former.sub)
            del self._subscribers[:-1]
        self.signalMessage(message)
