# SPDX-License-Identifier: Apache-2.0
"""What the node answers, as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ainet_ros.msg import Box, StageLatency
from ainet_ros.msg import Track as TrackMessage
from ainet_ros.tracker import State, Track

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

try:
    import vision_msgs.msg as vision_msgs
except ImportError:  # it has no wheel
    vision_msgs = None

_STATES = {State.TRACKING: TrackMessage.TRACKING, State.LOST: TrackMessage.LOST}


def track_message(
    header: Header,
    thermal_stamp: Time,
    target_id: int,
    track: Track | None,
    latency: StageLatency,
) -> TrackMessage:
    """The `~/track` of a pair; `track` is None while there is no target."""
    message = TrackMessage(
        header=header, thermal_stamp=thermal_stamp, state=TrackMessage.NO_TARGET, latency=latency
    )
    if track is not None:
        x, y, width, height = track.box
        message.target_id = target_id
        message.state = _STATES[track.state]
        message.score = track.score
        message.box = Box(x=x, y=y, width=width, height=height)
    return message


def detections_message(header: Header, target_id: int, track: Track | None) -> Any:
    """The `~/detections` of a pair (vision_msgs/Detection2DArray): empty unless TRACKING."""
    message = vision_msgs.Detection2DArray(header=header)
    if track is not None and track.state is State.TRACKING:
        x, y, width, height = track.box
        detection = vision_msgs.Detection2D(header=header, id=str(target_id))
        detection.bbox.center.position.x = x + width / 2
        detection.bbox.center.position.y = y + height / 2
        detection.bbox.size_x = width
        detection.bbox.size_y = height
        result = vision_msgs.ObjectHypothesisWithPose()
        result.hypothesis.class_id = "target"
        result.hypothesis.score = track.score
        detection.results.append(result)
        message.detections.append(detection)
    return message
