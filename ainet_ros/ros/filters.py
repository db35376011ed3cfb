# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The pairing as a filter of message_filters.

Where message_filters is not installed (it has no wheel), a stand-in of the part of its interface
used here serves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ainet_ros.vision.encoding import stamp_ns

from .pairing import NearestTime, Pair

if TYPE_CHECKING:
    from rclpy.node import Node

try:
    from message_filters import SimpleFilter, Subscriber
except ImportError:

    class SimpleFilter:  # type: ignore[no-redef]
        """Passes messages on to the callbacks registered with it."""

        def __init__(self) -> None:
            self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

        def registerCallback(self, callback: Callable[..., None], *args: Any) -> int:
            """Have `callback(*messages, *args)` called on each output; return its number."""
            number = len(self.callbacks)
            self.callbacks[number] = (callback, args)
            return number

        def signalMessage(self, *messages: Any) -> None:
            """Give messages to every registered callback."""
            for callback, args in list(self.callbacks.values()):
                callback(*messages, *args)

    class Subscriber(SimpleFilter):  # type: ignore[no-redef]
        """A subscription as the source of filters; takes `create_subscription`'s arguments."""

        def __init__(
            self, node: Node, message_type: type, topic: str, qos_profile: Any = 10, **kwargs: Any
        ) -> None:
            super().__init__()
            self.topic = topic
            self.sub = node.create_subscription(
                message_type, topic, self.signalMessage, qos_profile, **kwargs
            )

        def getTopic(self) -> str:
            return self.topic


class NearestTimePairs(SimpleFilter):  # type: ignore[misc]
    """Signals one `pairing.Pair` of messages for each match of `NearestTime`.

    Args:
        rgb, thermal: filters whose messages have a header.
        pairing: how to match; its slop, offset and queue size may be changed at any time.

    May be fed from several threads. An exception in a callback reaches the caller and leaves the
    filter in order.
    """

    def __init__(self, rgb: Any, thermal: Any, pairing: NearestTime) -> None:
        super().__init__()
        self.pairing = pairing
        self._lock = threading.Lock()
        rgb.registerCallback(self._add, pairing.add_rgb)
        thermal.registerCallback(self._add, pairing.add_thermal)

    def _add(self, message: Any, add: Callable[[int, Any], list[Pair]]) -> None:
        with self._lock:
            for pair in add(stamp_ns(message.header.stamp), message):
                self.signalMessage(pair)
