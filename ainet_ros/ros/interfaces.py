# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The topics and services of the nodes.

``python -m ainet_ros.ros.interfaces`` prints `docs/interfaces.md`, with the messages as installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Interface:
    """A topic or a service."""

    name: str
    """Relative to the namespace, to the node (~/), or absolute."""
    type: str
    text: str
    needs: str = ""
    """A package: it is there where that is installed."""


@dataclass(frozen=True)
class Interfaces:
    """All that a node has beside what every ROS 2 node, or managed node, has."""

    subscribed: tuple[Interface, ...] = ()
    published: tuple[Interface, ...] = ()
    services: tuple[Interface, ...] = ()


TRACKER = Interfaces(
    subscribed=(
        Interface(
            "rgb/image_raw",
            "sensor_msgs/msg/Image",
            "The RGB camera: colour or grey, 8 bit; YUV 4:2:2 and Bayer patterns too.",
        ),
        Interface(
            "rgb/image_raw/compressed",
            "sensor_msgs/msg/CompressedImage",
            "In its place with the parameter `rgb_transport: compressed`.",
        ),
        Interface(
            "thermal/image_raw",
            "sensor_msgs/msg/Image",
            "The thermal camera: 8 bit, grey or coloured, or 16 bit, raw counts too; its size "
            "may differ from the RGB camera's.",
        ),
        Interface(
            "thermal/image_raw/compressed",
            "sensor_msgs/msg/CompressedImage",
            "In its place with the parameter `thermal_transport: compressed`; 16 bit as PNG.",
        ),
        Interface(
            "rgb/camera_info",
            "sensor_msgs/msg/CameraInfo",
            "The RGB camera's calibration, for `~/bearing`.",
        ),
        Interface(
            "~/init_box",
            "sensor_msgs/msg/RegionOfInterest",
            "Each message starts a target in the newest pair, in the place of all others.",
        ),
        Interface(
            "~/init_detection",
            "vision_msgs/msg/Detection2D",
            "The same, in the pair of the detection's stamp.",
            needs="vision_msgs",
        ),
        Interface(
            "~/overlay_mouse_left",
            "geometry_msgs/msg/Point",
            "Clicks on the overlay, as rqt_image_view publishes them: two within ten seconds, on "
            "opposite corners, start a target.",
        ),
    ),
    published=(
        Interface(
            "~/track",
            "ainet_ros/msg/Track",
            "One for every pair and target: box in pixels and in fractions, score, TRACKING, LOST "
            "or NO_TARGET, whether a camera is silent, latency of each stage. The header is the "
            "RGB image's.",
        ),
        Interface(
            "~/detections",
            "vision_msgs/msg/Detection2DArray",
            "The same for other nodes; empty while lost.",
            needs="vision_msgs",
        ),
        Interface(
            "~/bearing",
            "geometry_msgs/msg/Vector3Stamped",
            "Unit vector to the oldest target that is TRACKING, in the RGB camera's optical "
            "frame; where `rgb/camera_info` comes.",
        ),
        Interface(
            "~/events",
            "ainet_ros/msg/Event",
            "INIT, with its box, LOST, FOUND and RESET of each target; DEGRADED where a camera "
            "falls silent, RESTORED.",
        ),
        Interface(
            "~/overlay",
            "sensor_msgs/msg/Image",
            "The RGB image with boxes and states, and the thermal image as overlay_style says; "
            "drawn only while somebody looks.",
        ),
        Interface("~/overlay/compressed", "sensor_msgs/msg/CompressedImage", "The same as JPEG."),
        Interface(
            "/diagnostics",
            "diagnostic_msgs/msg/DiagnosticArray",
            "Once a second: rate and silence of each camera, pairing, states, latency, memory, "
            "and what to do where something is wrong.",
        ),
        Interface(
            "~/debug/processing_time_ms",
            "std_msgs/msg/Float64",
            "The node's own time for a pair.",
        ),
        Interface(
            "~/debug/pipeline_latency_ms",
            "std_msgs/msg/Float64",
            "From the RGB image's stamp to the answer.",
        ),
    ),
    services=(
        Interface(
            "~/init",
            "ainet_ros/srv/InitTarget",
            "Start a target in a box in pixels or fractions. With the stamp of the frame that the "
            "box was drawn on, the node starts there and catches up, and meanwhile `~/track` and "
            "`~/events` alone tell of it; `add: true` tracks it beside the others.",
        ),
        Interface(
            "~/reset", "ainet_ros/srv/ResetTarget", "Forget a target by its id, or all of them."
        ),
    ),
)

REPLAY_CAMERA = Interfaces(
    published=(
        Interface("rgb/image_raw", "sensor_msgs/msg/Image", "The recording's RGB images."),
        Interface(
            "rgb/image_raw/compressed",
            "sensor_msgs/msg/CompressedImage",
            "In its place with the parameter `rgb_transport: compressed`.",
        ),
        Interface("thermal/image_raw", "sensor_msgs/msg/Image", "Its thermal images."),
        Interface(
            "thermal/image_raw/compressed",
            "sensor_msgs/msg/CompressedImage",
            "In its place with the parameter `thermal_transport: compressed`.",
        ),
        Interface(
            "~/frame",
            "std_msgs/msg/Header",
            "The stamp of each RGB image and, as its frame_id, the number of the frame in the "
            "recording, from 0.",
        ),
    ),
)

INTRODUCTION = """\
# Topics, services and messages

Of the nodes `ainet` (executable `tracker_node`) and `replay_camera`, made from the code. `~/` is
the node's name: `~/track` is `/ainet/track`. Names without a slash before them are in the node's
namespace and are remapped as any other. What every ROS 2 node has is left out, and so are the
services of a managed node, for which there is `ros2 lifecycle`.

The parameters of `ainet` have [a page](parameters.md). The quality of service of each of its
publishers can be set by the read-only parameters `qos_overrides.TOPIC.publisher.POLICY` (history,
depth, reliability), a camera's subscription by `qos_overrides.TOPIC.subscription.reliability`
(auto, best_effort or reliable) and `.depth`; TOPIC is the name with its namespace, remapped.
"""


def markdown() -> str:
    """The page `docs/interfaces.md`. Needs ROS and the installed package."""
    from ament_index_python.packages import get_package_share_path

    from .replay_camera import CameraParameters
    from .table import rows

    share = get_package_share_path("ainet_ros")
    parts = [
        INTRODUCTION,
        "## Node `ainet`\n",
        _section("Subscribes", TRACKER.subscribed),
        _section("Publishes", TRACKER.published),
        _section("Services", TRACKER.services),
        "## Messages and services\n",
    ]
    for path in sorted([*share.glob("msg/*.msg"), *share.glob("srv/*.srv")]):
        kind = path.suffix.removeprefix(".")
        parts.append(f"### ainet_ros/{kind}/{path.stem}\n")
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        text = "\n".join(line for line in lines if not line.startswith("# SPDX-"))
        parts.append(f"```text\n{text}\n```\n")
    parts += [
        "## Node `replay_camera`\n",
        "Plays a recording, or a generated scene, in place of the cameras.\n",
        _section("Publishes", REPLAY_CAMERA.published),
        "### Parameters\n",
        rows(CameraParameters),
    ]
    return "\n".join(parts)


def _section(title: str, interfaces: Iterable[Interface]) -> str:
    lines = [f"**{title}**", "", "| | type | |", "|---|---|---|"]
    for one in interfaces:
        where = f" Where {one.needs} is installed." if one.needs else ""
        lines.append(f"| `{one.name}` | `{one.type}` | {one.text}{where} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
