# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Quality of service: its overrides by parameter, and what is said where two sides do not fit.

A publisher's history, depth and reliability are the read-only parameters
`qos_overrides.TOPIC.publisher.POLICY`, as in every ROS 2 node that offers them. A camera's
subscription has reliability and depth, see `camera`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.exceptions import InvalidParameterTypeException
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.publisher import Publisher


def profile(depth: int, reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE) -> QoSProfile:
    """Keeps the last `depth` messages."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)


def create_publisher(node: Node, message_type: type, topic: str, depth: int) -> Publisher[Any]:
    """A reliable publisher, unless parameters override that.

    Raises ValueError for a wrong parameter.
    """
    name = node.resolve_topic_name(topic)
    try:
        return node.create_publisher(
            message_type,
            topic,
            profile(depth),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=_says_what_does_not_fit(
                    node, name, "publisher", "a subscriber asks for more and hears nothing"
                )
            ),
        )
    except (RuntimeError, InvalidParameterTypeException) as error:
        raise ValueError(f"qos_overrides.{name}.publisher: {error}") from error


def subscription_events(node: Node, topic: str) -> SubscriptionEventCallbacks:
    """Of a subscription whose quality of service parameters may override. topic: resolved."""
    return SubscriptionEventCallbacks(
        incompatible_qos=_says_what_does_not_fit(
            node, topic, "subscription", "a publisher offers less and is not heard"
        )
    )


def _says_what_does_not_fit(node: Node, topic: str, side: str, what: str) -> Callable[[Any], None]:
    def say(event: Any) -> None:
        policy = QoSPolicyKind(event.last_policy_kind).name.lower()
        node.get_logger().warning(
            f"quality of service on {topic}: {what} ({policy}); set it alike on both sides, here "
            f"by the parameter qos_overrides.{topic}.{side}.{policy}"
        )

    return say
