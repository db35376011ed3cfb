# SPDX-License-Identifier: Apache-2.0
"""Runs of real nodes that the recorder wrote, read back and repeated."""

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")
pytest.importorskip("rosbags", reason="needs rosbags")

import ros_nodes

from ainet_ros.cli import main
from ainet_ros.msg import Track
from ainet_ros.ros.filters import stamp_ns
from ainet_ros.vision import boxes as box_files
from ainet_ros.vision import recording
from ainet_ros.vision.bag import opened
from ainet_ros.vision.scenes import Scene

PAIRS, BOXES = ros_nodes.moving_scene(12)
PERIOD_S = 0.2
THRESHOLDS = {"lost_below": 0.0, "found_above": 0.0}  # what tiny weights score means nothing
SMALL = {"free_mb": 0, "part_mb": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return ros_nodes.save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def ros(tmp_path):
    with ros_nodes.client(tmp_path) as client:
        yield client


def start_recorder(ros, folder, *arguments, **parameters):
    """A recorder that hears the client's cameras."""
    recorder = ros.start("recorder", {"folder": folder, **SMALL, **parameters}, *arguments)
    recorder.wait_for_log("ready: listening to")
    ros.spin_until(lambda: ros.rgb.get_subscription_count() >= 2, "recorder's subscription")
    ros.spin_for(0.5)  # the nodes may find each other a little later, and nothing tells
    return recorder


def stop(ros, recorder):
    ros.spin_for(0.5)  # the last answers are on their way
    recorder.send(signal.SIGINT)
    assert recorder.wait() == 0, recorder.text()
    assert "Traceback" not in recorder.text()


def the_run(folder):
    (run,) = [run for run in folder.iterdir() if run.is_dir()]
    return run


def play(ros, pairs):
    headers = []
    for rgb, thermal in pairs:
        headers.append(ros.publish(rgb, thermal))
        ros.spin_for(PERIOD_S)
    return headers


def repeat(run, output, capsys):
    """What `ainet track` says of a recording."""
    assert main(["track", str(run), "--output", str(output)]) == 0
    return capsys.readouterr().out


def test_a_camera_s_run_is_recorded_in_parts_and_tracked_again(ros, tiny, tmp_path, capsys):
    scene = Scene(3, frames=14, size=(320, 240))
    scene.write(tmp_path / "scene")
    ros.start("tracker_node", {"weights": tiny, **THRESHOLDS}).wait_for_log("ready:")
    recorder = ros.start("recorder", {"folder": tmp_path / "bags", **SMALL})
    recorder.wait_for_log("ready: listening to")
    camera = ros.start(
        "replay_camera",
        {"source": tmp_path / "scene", "rate": 5.0, "paused": True, "thermal_encoding": "mono16"},
    )
    recorder.wait_for_log("recording into")
    ros.spin_until(lambda: ros.tracks, "answer")
    box = scene.boxes[0]
    start = ros.tracks[-1].header.stamp
    assert ros.init(box, start).success
    assert ros.set_parameter("replay_camera", paused=False)[0].successful
    ros.spin_until(lambda: not camera.alive(), "end of the recording")
    stop(ros, recorder)

    run = the_run(tmp_path / "bags")
    assert len(list(run.glob("part_*"))) > 2
    heard = {stamp_ns(t.header.stamp): t for t in ros.tracks if t.state != Track.NO_TARGET}
    kept = recording.read(run)
    said = {answer.stamp_ns: answer for answer in kept.answers if answer.target_id}
    assert said.keys() == heard.keys()
    for stamp, answer in said.items():
        track = heard[stamp]
        assert answer.box == (track.box.x, track.box.y, track.box.width, track.box.height)
        assert answer.score == pytest.approx(track.score, abs=1e-7)
    assert kept.parameters["weights"] == tiny
    (event,) = kept.events
    assert (event.event, event.stamp_ns) == ("INIT", stamp_ns(start))
    assert event.box == tuple(box)

    printed = repeat(run, tmp_path / "out", capsys)
    assert (
        f"target 1 as recorded in {len(heard) + 1} pairs: largest difference 0 pixels" in printed
    )
    assert "not repeated" not in printed
    written = box_files.read(tmp_path / "out" / "boxes.txt")
    expected = [event.box, *(said[stamp].box for stamp in sorted(said))]
    assert written == pytest.approx(np.array(expected), abs=1e-3)
    # Each part is a bag of its own.
    for part in sorted(run.glob("part_*")):
        with opened(part) as bag:
            assert bag.message_count > 0
