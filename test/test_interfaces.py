# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The page of topics, services and parameters against what running nodes offer."""

import contextlib
import importlib.util
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from rcl_interfaces.srv import ListParameters
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node

from ainet_ros.ros.interfaces import REPLAY_CAMERA, TRACKER, markdown
from ainet_ros.ros.parameters import TrackerParameters
from ainet_ros.ros.replay_camera import CameraParameters
from ainet_ros.ros.table import describe

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("subscribed", "published", "services")
TRANSPORTS = ("raw", "compressed")


def test_committed_page_is_made_from_the_code():
    committed = (ROOT / "docs/interfaces.md").read_text(encoding="utf-8")
    assert committed == markdown(), (
        "write it anew: python -m ainet_ros.ros.interfaces > docs/interfaces.md"
    )


def offers(observer, name, namespace):
    """(side, name as in the table, type) of all that the graph knows of a node."""
    found = set()
    prefix = f"{namespace}/".replace("//", "/")
    for side, query in zip(
        SIDES,
        (
            observer.get_subscriber_names_and_types_by_node,
            observer.get_publisher_names_and_types_by_node,
            observer.get_service_names_and_types_by_node,
        ),
        strict=True,
    ):
        for topic, (kind,) in query(name, namespace):
            relative = topic.replace(f"{prefix}{name}/", "~/", 1)
            if namespace != "/":
                relative = relative.removeprefix(prefix)
            found.add((side, relative, kind))
    return found


def of_every(kind, context):
    """What a node of this class offers that adds nothing, and its parameters."""
    bare = kind("bare", context=context)
    found = offers(bare, "bare", "/")
    parameters = set(bare.list_parameters([], 0).names)
    bare.destroy_node()
    return found, parameters


def described(interfaces):
    """As `offers` has it."""
    return {
        (side, one.name, one.type)
        for side in SIDES
        for one in getattr(interfaces, side)
        if not one.needs or importlib.util.find_spec(one.needs)
    }


@pytest.mark.parametrize(
    ("module", "name", "kind", "interfaces", "table"),
    [
        ("tracker_node", "ainet", LifecycleNode, TRACKER, TrackerParameters),
        ("replay_camera", "replay_camera", Node, REPLAY_CAMERA, CameraParameters),
    ],
    ids=["ainet", "replay_camera"],
)
def test_running_nodes_offer_what_the_page_says(
    ros, tmp_path, module, name, kind, interfaces, table
):
    common, common_parameters = of_every(kind, ros.node.context)
    settings = {"loop": True}
    if module == "tracker_node":
        settings = {"weights": ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")}
    for transport in TRANSPORTS:
        transports = {"rgb_transport": transport, "thermal_transport": transport}
        ros.start(module, settings | transports, "-r", f"__ns:=/{transport}")
    expected = described(interfaces)

    def offered():
        found = set()
        for transport in TRANSPORTS:
            # Before the node is known to the graph, asking for it is an error.
            with contextlib.suppress(RuntimeError):
                found |= offers(ros.node, name, f"/{transport}")
        return found - common

    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    while offered() != expected and time.monotonic() < deadline:
        ros.spin_for(0.2)
    assert offered() == expected

    answer = ros.call(
        ListParameters, f"/{TRANSPORTS[0]}/{name}/list_parameters", ListParameters.Request()
    )
    parameters = {one for one in answer.result.names if not one.startswith("qos_overrides.")}
    assert parameters - common_parameters == set(describe(table))
