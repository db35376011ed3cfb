# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the node answers, as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def track_messages(
    header: Header,
    thermal_stamp: Time,
    size: tuple[int, int],
    tracks: Mapping[int, Track],
    latency: StageLatency,
    *,
    degraded: bool,
) -> list[TrackMessage]:
    """The `~/track` of a pair: one message for each target by its id, or one that says there is
    none. size: width and height of the RGB image; degraded: whether one camera is silent.
    """
    width, height = size

    def message(**fields: Any) -> TrackMessage:
        return TrackMessage(
            header=header,
            thermal_stamp=thermal_stamp,
            degraded=degraded,
            latency=latency,
            **fields,
        )

    if not tracks:
        return [message(state=TrackMessage.NO_TARGET)]
    return [
        message(
            target_id=target_id,
            state=_STATES[track.state],
            score=finite_score(track),
            box=box_message(track.box),
            normalized_box=box_message(
                (
                    track.box[0] / width,
                    track.box[1] / height,
                    track.box[2] / width,
                    track.box[3] / height,
                )
            ),
        )
        for target_id, track in tracks.items()
    ]


def finite_score(track: Track) -> float:
    """0 where the network's answer is no number."""
    return track.score if math.isfinite(track.score) else 0.0


def box_message(values: tuple[float, float, float, float]) -> Box:
    """x, y, w, h as a message."""
    x, y, width, height = values
    return Box(x=x, y=y, width=width, height=height)


def detections_message(header: Header, tracks: Mapping[int, Track]) -> Any:
    """The `~/detections` of a pair (vision_msgs/Detection2DArray): the targets, by their ids, that
    are TRACKING.
    """
    message = vision_msgs.Detection2DArray(header=header)
    for target_id, track in tracks.items():
        if track.state is not State.TRACKING:
            continue
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
