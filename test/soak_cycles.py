# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""One tracker that is configured, tracks, and is let go of, over and over.

``python test/soak_cycles.py subscription|weights FILE`` prints how many bytes a library keeps,
without any node of this package: rclpy of a subscription that was made and destroyed, safetensors
of a file that was read.
"""

import contextlib
import subprocess
import sys
import time

import numpy as np
import rclpy
import ros_nodes
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from safetensors import safe_open
from sensor_msgs.msg import Image
from soak_samples import Samples, look, trends

WARM_UP = 0.2
"""Share of the cycles before memory is judged."""
INIT_EVERY = 10
"""In each so many-th cycle a target is started and answered."""
REPEAT_S = 0.05
"""Between two pairs, until one is answered: subscriptions take time to be found."""
SUBSCRIPTIONS = 5
"""Of an activation: each camera, best effort and then reliable, and camera_info."""
NAME = "tracker_node"


def run(result, folder, cycles, *, say):
    """Fill a dict for JSON. folder: to be made, for the samples."""
    result |= {"asked": cycles, "cycles": 0, "inits": 0, "faults": []}
    folder.mkdir()
    seconds = []
    pairs, boxes = ros_nodes.moving_scene(1)
    with (
        contextlib.closing(Samples(folder / "cycles.csv")) as samples,
        ros_nodes.client(folder) as client,
    ):
        weights = ros_nodes.save_tiny_weights(folder / "tiny.safetensors")
        result["kept"] = kept_by_others(weights)
        parameters = {"weights": weights, "lost_below": 0.0, "found_above": 0.0}
        tracker = client.start(NAME, {**parameters, "autostart": False})
        tracker.wait_for_log("waiting to be configured")
        newest = told = 0
        say(f"cycles: {cycles}")
        try:
            for number in range(cycles):
                began = time.monotonic()
                change(client, Transition.TRANSITION_CONFIGURE)
                change(client, Transition.TRANSITION_ACTIVATE)
                client.tracks.clear()
                answered(client, pairs[0], 0)
                if number % INIT_EVERY == 0:
                    newest = start(client, pairs[0], boxes[0], newest)
                    result["inits"] += 1
                change(client, Transition.TRANSITION_DEACTIVATE)
                change(client, Transition.TRANSITION_CLEANUP)
                seconds.append(time.monotonic() - began)
                samples.take({NAME: tracker.pid}, number)
                result["cycles"] = number + 1
                if time.monotonic() - told > 60:
                    told = time.monotonic()
                    say(f"cycles: {number + 1}, {samples.taken[-1].memory:.1f} MiB")
        except AssertionError as error:
            result["faults"].append(str(error))
        finally:
            result["trends"] = trends(samples.taken, WARM_UP * cycles)
            if seconds:
                result["seconds"] = np.percentile(seconds, (50, 99)).tolist()


def change(client, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    answer = client.call(ChangeState, "ainet/change_state", request)
    assert answer.success, f"transition {transition} failed"


def answered(client, pair, target_id):
    """Until a pair is answered with the target."""
    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    while not any(track.target_id == target_id for track in client.tracks):
        assert time.monotonic() < deadline, f"no answer with target {target_id}"
        client.publish(*pair)
        client.spin_for(REPEAT_S)


def start(client, pair, box, newest):
    """The id of a target that is started and answered."""
    answer = client.init(box)
    assert answer.success, f"an init was refused: {answer.message}"
    assert answer.target_id > newest, f"target {answer.target_id} came after {newest}"
    answered(client, pair, answer.target_id)
    return answer.target_id


def kept_by_others(weights):
    """Bytes that a library keeps, found by itself: of a subscription that was destroyed, and of a
    file of weights that was read."""
    return {
        what: float(
            subprocess.run(
                [sys.executable, __file__, what, weights],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for what in ("subscription", "weights")
    }


def measure_subscription(_):
    rclpy.init(domain_id=ros_nodes.new_domain())
    node = rclpy.create_node("plain")
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def make():
        subscription = node.create_subscription(Image, "image", lambda image: None, 5)
        executor.spin_once(timeout_sec=0)
        node.destroy_subscription(subscription)

    kept = _rise(make, 1000)
    rclpy.shutdown()
    return kept


def measure_weights(weights):
    def read():
        with safe_open(weights, framework="pt") as file:
            return [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118

    return _rise(read, 200)


def _rise(function, count):
    """Bytes by which the memory of this process rises with each call."""
    samples = []
    for number in range(count):
        function()
        if number >= WARM_UP * count:
            samples.append((number, look("plain", "self", number).memory * 2**20))
    return np.polyfit(*zip(*samples, strict=True), 1)[0]


if __name__ == "__main__":
    measures = {"subscription": measure_subscription, "weights": measure_weights}
    print(measures[sys.argv[1]](sys.argv[2]))
