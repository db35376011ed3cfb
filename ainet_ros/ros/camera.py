# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A camera's topic, subscribed as reliably as the camera publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from .filters import SimpleFilter, Subscriber
from .qos import profile, subscription_events

if TYPE_CHECKING:
    from rclpy.node import Node

DEPTH = 5
AUTO = "auto"


class Camera(SimpleFilter):  # type: ignore[misc]
    """Passes on the images of a topic, from the present set of its publishers.

    A best-effort subscription hears every kind of camera, but an untuned DDS loses many of the
    larger images, even within one machine (Fast DDS on one busy core: a tenth of those of 640x480
    pixels, nine tenths of those of 1920x1080). So the subscription is best effort until
    publishers are seen, and reliable while all of them are. The read-only parameters
    qos_overrides.TOPIC.subscription.reliability (auto, best_effort or reliable) and .depth have
    the last word.

    Args:
        transport: raw or compressed, which adds /compressed to the topic.
        serialized: pass the images on as the bytes that came.

    Raises ValueError for a wrong parameter.

    `follow` is for the thread that spins, between two spins: rclpy's executors do not bear that
    another thread destroys a subscription.
    """

    def __init__(
        self, node: Node, topic: str, transport: str, *, serialized: bool = False
    ) -> None:
        super().__init__()
        compressed = transport == "compressed"
        self._node = node
        self._serialized = serialized
        self.type = CompressedImage if compressed else Image
        self.name = f"{topic}/compressed" if compressed else topic
        """As the node names the topic."""
        self.topic = node.resolve_topic_name(self.name)
        """With its namespace, remapped."""
        self._depth = int(self._override("depth", DEPTH))
        if self._depth < 1:
            raise ValueError(
                f"qos_overrides.{self.topic}.subscription.depth: {self._depth} must be 1 or more"
            )
        reliability = str(self._override("reliability", AUTO))
        if reliability not in (AUTO, "best_effort", "reliable"):
            raise ValueError(
                f"qos_overrides.{self.topic}.subscription.reliability: {reliability!r} is none of "
                "auto, best_effort, reliable"
            )
        self._follows = reliability == AUTO
        self._reliability = (
            ReliabilityPolicy.BEST_EFFORT
            if self._follows
            else ReliabilityPolicy[reliability.upper()]
        )
        self._subscribers = {self._reliability: self._subscribe()}
        self._heard: ReliabilityPolicy | None = None  # how the last image came

    def _override(self, policy: str, default: Any) -> Any:
        name = f"qos_overrides.{self.topic}.subscription.{policy}"
        if self._node.has_parameter(name):  # listened to before
            return self._node.get_parameter(name).value
        descriptor = ParameterDescriptor(
            description=f"{policy} of the subscription to {self.topic}", read_only=True
        )
        try:
            return self._node.declare_parameter(name, default, descriptor).value
        except InvalidParameterTypeException as error:
            raise ValueError(f"parameter {name}: {error}") from error

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
        if not self._follows:
            return
        # By the name before it is remapped, which this does too.
        publishers = self._node.get_publishers_info_by_topic(self.name)
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
        events = subscription_events(self._node, self.topic)
        if self._follows:
            events.incompatible_qos = lambda event: None  # `follow` mends it
        subscriber = Subscriber(
            self._node,
            self.type,
            self.name,
            qos_profile=profile(self._depth, self._reliability),
            event_callbacks=events,
            raw=self._serialized,
        )
        subscriber.registerCallback(self._on_image, self._reliability)
        return subscriber

    def _on_image(self, message: Any, reliability: ReliabilityPolicy) -> None:
        self._heard = reliability
        self.signalMessage(message)
