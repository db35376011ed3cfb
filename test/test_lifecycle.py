# SPDX-License-Identifier: Apache-2.0
"""The tracker as a managed node."""

import signal

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

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
