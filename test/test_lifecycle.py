# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# ruff: noqa: E402 - without ROS the rest is not imported
"""The tracker as a managed node."""

import gc
import signal
import threading
import weakref

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ainet_ros.msg import Event
from ainet_ros.ros.images import to_image
from ainet_ros.ros.tracker_node import TrackerNode

PAIRS, BOXES = ros_nodes.moving_scene(3)


@pytest.fixture
def managed(tmp_path):
    """A client, a node that waits to be configured, and the path of its weights."""
    weights = tmp_path / "tiny.safetensors"
    with ros_nodes.client(tmp_path) as client:
        parameters = {
            "weights": weights,
            "autostart": False,
            "lost_below": 0.0,
            "found_above": 0.0,
        }
        process = client.start("tracker_node", parameters)
        process.wait_for_log("waiting to be configured")
        yield client, process, weights


def change(client, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return client.call(ChangeState, "ainet/change_state", request).success


def state(client):
    return client.call(GetState, "ainet/get_state", GetState.Request()).current_state.id


def tracks(client):
    """Whether the node answers a target's pairs."""
    client.spin_until(lambda: client.hears(client.rgb) and client.hears(client.thermal), "cameras")
    client.spin_for(0.3)
    client.track(*PAIRS[0])
    assert client.init(BOXES[0]).success
    return client.track(*PAIRS[1]).target_id > 0


def test_node_goes_through_its_states_and_back(managed):
    client, _, weights = managed
    ros_nodes.save_tiny_weights(weights)
    assert state(client) == State.PRIMARY_STATE_UNCONFIGURED
    assert "not active" in client.init(BOXES[0]).message
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == State.PRIMARY_STATE_INACTIVE
    assert not client.hears(client.rgb)
    assert "not active" in client.init(BOXES[0]).message
    for _ in range(2):
        assert change(client, Transition.TRANSITION_ACTIVATE)
        assert state(client) == State.PRIMARY_STATE_ACTIVE
        assert tracks(client)
        assert change(client, Transition.TRANSITION_DEACTIVATE)
        assert state(client) == State.PRIMARY_STATE_INACTIVE
        client.spin_until(lambda: not client.hears(client.rgb), "silence")
        assert "not active" in client.init(BOXES[0]).message
    assert client.get_parameter("ainet", "lost_below") == 0.0
    assert change(client, Transition.TRANSITION_CLEANUP)
    assert state(client) == State.PRIMARY_STATE_UNCONFIGURED
    assert change(client, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(client) == State.PRIMARY_STATE_FINALIZED


def test_a_failing_transition_says_why_and_may_be_tried_again(managed):
    client, process, weights = managed
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    process.wait_for_log(f"cannot configure: no weights file {weights}")
    assert state(client) == State.PRIMARY_STATE_UNCONFIGURED
    ros_nodes.save_tiny_weights(weights)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    weights.rename(weights.with_suffix(".gone"))
    assert change(client, Transition.TRANSITION_ACTIVATE)
    assert change(client, Transition.TRANSITION_DEACTIVATE)
    # The network was let go of: it must be loaded again.
    assert not change(client, Transition.TRANSITION_ACTIVATE)
    assert state(client) == State.PRIMARY_STATE_INACTIVE
    weights.with_suffix(".gone").rename(weights)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    assert tracks(client)


def test_targets_end_with_the_activation_and_their_ids_are_not_given_again(managed):
    client, _, weights = managed
    ros_nodes.save_tiny_weights(weights)
    events = []
    client.node.create_subscription(Event, "ainet/events", events.append, 10)
    for _ in range(2):
        assert change(client, Transition.TRANSITION_CONFIGURE)
        assert change(client, Transition.TRANSITION_ACTIVATE)
        assert tracks(client)
        assert change(client, Transition.TRANSITION_DEACTIVATE)
        assert change(client, Transition.TRANSITION_CLEANUP)
    client.spin_until(lambda: len(events) >= 4, "events")
    kinds = (Event.INIT, Event.RESET)
    assert [(e.event, e.target_id) for e in events] == [(k, i) for i in (1, 2) for k in kinds]


def test_an_activation_that_fails_leaves_nothing_subscribed(tmp_path):
    weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    wrong = "qos_overrides./thermal/image_raw.subscription.reliability"
    with ros_nodes.client(tmp_path) as client:
        process = client.start(
            "tracker_node", {"weights": weights, "autostart": False, wrong: "perhaps"}
        )
        assert change(client, Transition.TRANSITION_CONFIGURE)
        for _ in range(2):
            assert not change(client, Transition.TRANSITION_ACTIVATE)
        process.wait_for_log("cannot activate: " + wrong)
        client.spin_until(lambda: not client.hears(client.rgb), "end of the subscription")
        assert client.node.count_subscribers("/rgb/camera_info") == 0


class Marked(Image):
    """An image of which it can be told whether anybody holds it."""


def test_a_deactivated_node_holds_no_image(tmp_path):
    weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    context = rclpy.Context()
    parameters = [f"weights:={weights}", "autostart:=false", "lost_below:=0.0", "found_above:=0.0"]
    arguments = ["--ros-args", *(word for one in parameters for word in ("-p", one))]
    rclpy.init(args=arguments, context=context, domain_id=ros_nodes.new_domain())
    node = TrackerNode(context=context)
    worker = threading.Thread(target=node._worker.run)
    worker.start()
    held = []

    def feed(side, number):
        pixels = PAIRS[0][side]
        image = to_image(pixels, "mono8" if pixels.ndim == 2 else "rgb8", Header())
        stamp = Time(sec=100, nanosec=100_000_000 * number)
        fields = {name: getattr(image, name) for name in image.get_fields_and_field_types()}
        marked = Marked(**{**fields, "header": Header(stamp=stamp)})
        held.append(weakref.ref(marked))
        node._cameras[side].signalMessage(marked)

    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        for number in range(5):
            feed(0, number)
            feed(1, number)
        feed(0, 5)  # without a partner
        assert node._start(BOXES[0]) == (1, "")
        gc.collect()
        assert sum(image() is not None for image in held) == len(held)
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        gc.collect()
        assert not any(image() for image in held)
    finally:
        node._worker.stop()
        worker.join(10)
        node.close()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_a_node_that_tracks_may_be_shut_down_at_once(managed):
    client, process, weights = managed
    ros_nodes.save_tiny_weights(weights)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    assert tracks(client)
    assert change(client, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert state(client) == State.PRIMARY_STATE_FINALIZED
    process.send(2)
    assert process.wait() == 0


def test_a_lifecycle_manager_s_bond_holds_while_the_node_is_active(managed):
    bondpy = pytest.importorskip("bondpy.bondpy", reason="needs bondpy")
    client, process, weights = managed
    ros_nodes.save_tiny_weights(weights)

    def active_bond():
        """The manager's end, once it is bound to the node, which is active now."""
        formed = []
        bond = bondpy.Bond(client.node, "bond", "ainet", on_formed=lambda: formed.append(True))
        bond.start()
        assert change(client, Transition.TRANSITION_ACTIVATE)
        client.spin_until(lambda: formed, "bond")
        return bond

    assert change(client, Transition.TRANSITION_CONFIGURE)
    bond = active_bond()
    assert change(client, Transition.TRANSITION_DEACTIVATE)
    client.spin_until(bond.is_broken, "end of the bond")
    assert process.alive()
    bond = active_bond()
    assert tracks(client)
    process.send(signal.SIGKILL)
    client.spin_until(bond.is_broken, "end of the bond")
