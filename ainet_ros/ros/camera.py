# SPDX-License-Identifier: Apache-2.0
"""A camera's topic, subscribed as reliably as the camera publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from .filters import SimpleFilter, Subscriber

if TYPE_CHECKING:
    from rclpy.node import Node

DEPTH = 5


class Camera(SimpleFilter):  # type: ignore[misc]
    """Passes on the images of a topic, from the present set of its publishers.

    A best-effort subscription hears every kind of camera, but an untuned DDS loses many of the
    larger images, even within one machine (Fast DDS on one busy core: a tenth of those of 640x480
    pixels, nine tenths of those of 1920x1080). So the subscription is best effort until
    publishers are seen, and reliable while all of them are.

    Args:
        transport: raw or compressed, which adds /compressed to the topic.

    `follow` is for the thread that spins, between two spins: rclpy's executors do not bear that
    another thread destroys a subscription.
    """

    def __init__(self, node: Node, topic: str, transport: str) -> None:
        super().__init__()
        compressed = transport == "compressed"
        self._node = node
        self._type = CompressedImage if compressed else Image
        self._relative = f"{topic}/compressed" if compressed else topic
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._subscribers = {self._reliability: self._subscribe()}
        self.topic = self._subscribers[self._reliability].sub.topic_name
        """With its namespace, remapped."""
        self._heard: ReliabilityPolicy | None = None  # how the last image came

    def destroy(self) -> None:
        """Stop listening."""
        for subscriber in self._subscribers.values():
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers.clear()

    def follow(self) -> None:
        """Subscribe anew where the publishers have changed."""
        if self._heard == self._reliability:
            # The newer subscription hears the cameras: the former has served. Until here images
            # may have come twice, which the pairing takes for late ones; none was missed.
            for reliability in set(self._subscribers) - {self._reliability}:
                self._node.destroy_subscription(self._subscribers.pop(reliability).sub)
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return
        reliable = all(
            publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            for publisher in publishers
        )
        self._reliability = (
            ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        )
        if self._reliability not in self._subscribers:
            self._subscribers[self._reliability] = self._subscribe()

    def _subscribe(self) -> Subscriber:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=DEPTH, reliability=self._reliability
        )
        subscriber = Subscriber(
            self._node,
            self._type,
            self._relative,
            qos_profile=qos,
        )
        subscriber.registerCallback(self._on_image, self._reliability)
        return subscriber

    def _on_image(self, message: Any, reliability: ReliabilityPolicy) -> None:
        self._heard = reliability
        self.signalMessage(message)
