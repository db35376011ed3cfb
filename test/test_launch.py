# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Launch files and RViz's configuration; with the real launch where it is installed."""

import ast
import importlib.util
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))

needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("rclpy") is None
    or importlib.util.find_spec("launch_ros") is None
    or shutil.which("ros2") is None,
    reason="needs the launch, launch_ros and ros2cli of a ROS 2 distribution",
)


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_every_argument_is_described(file):
    calls = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument"
    ]
    assert calls
    for call in calls:
        assert {"default_value", "description"} <= {keyword.arg for keyword in call.keywords}


def test_rviz_shows_the_overlay():
    config = yaml.safe_load((ROOT / "config" / "ainet.rviz").read_text(encoding="utf-8"))
    (display,) = config["Visualization Manager"]["Displays"]
    assert display["Class"] == "rviz_default_plugins/Image"
    assert display["Topic"]["Value"] == "/ainet/overlay"
    assert display["Topic"]["Reliability Policy"] == "Reliable"


def launch(*arguments):
    return ["ros2", "launch", "ainet_ros", *arguments]


@needs_launch
def test_arguments_are_shown():
    done = subprocess.run(
        launch("tracker.launch.py", "--show-args"), capture_output=True, text=True, check=True
    )
    for name in (
        "params_file",
        "weights",
        "device",
        "precision",
        "rgb",
        "thermal",
        "use_sim_time",
        "record",
        "rviz",
        "console",
    ):
        assert f"'{name}'" in done.stdout


@needs_launch
def test_a_wrong_choice_is_refused():
    done = subprocess.run(
        launch("tracker.launch.py", "rviz:=perhaps"), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "perhaps" in done.stdout + done.stderr


@needs_launch
@pytest.mark.skipif(shutil.which("rviz2") is not None, reason="RViz is installed")
@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_without_rviz_nothing_is_left_behind(file):
    done = subprocess.run(launch(file.name, "rviz:=true"), capture_output=True, text=True)
    assert done.returncode != 0
    assert "package 'rviz2' not found" in done.stdout + done.stderr
    assert "process started" not in done.stdout + done.stderr


@needs_launch
def test_tracker_is_launched_with_remaps_namespace_and_parameters(ros, tiny, tmp_path):
    import ros_nodes

    from ainet_ros.msg import Track

    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(
        "/**/ainet:\n  ros__parameters:\n    slop: 0.123\n"
        "/**/console:\n  ros__parameters:\n    host: 127.0.0.2\n    port: 0\n"
    )
    heard = []
    ros.node.create_subscription(Track, "/robot/ainet/track", heard.append, 10)
    process = ros.run(
        launch(
            "tracker.launch.py",
            f"weights:={tiny}",
            f"params_file:={parameters}",
            "rgb:=/rgb/image_raw",
            "thermal:=/thermal/image_raw",
            "namespace:=robot",
            "device:=cpu",
            "precision:=float32",
            "console:=true",
        )
    )
    process.wait_for_log("ready: waiting")
    process.wait_for_log("ready: http://127.0.0.2:")
    ros.wait_for_listener()
    header = ros.publish(*ros_nodes.moving_scene(1)[0][0])
    ros.spin_until(lambda: heard, "answer")
    assert heard[0].header == header
    # The calibration lies beside the images.
    assert ros.node.count_subscribers("/rgb/camera_info") == 1
    assert ros.get_parameter("/robot/ainet", "precision") == "float32"
    assert ros.get_parameter("/robot/console", "host") == "127.0.0.2"
    assert ros.get_parameter("/robot/console", "port") == 0
    assert ros.get_parameter("/robot/ainet", "slop") == 0.123
    assert ros.get_parameter("/robot/ainet", "weights") == tiny
    nodes = ros.node.get_node_names_and_namespaces_with_enclaves()
    enclaves = {(name, enclave) for name, namespace, enclave in nodes if namespace == "/robot"}
    assert enclaves == {("ainet", "/ainet"), ("console", "/console")}
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "process has finished cleanly" in process.text()


@needs_launch
def test_the_log_level_holds_in_a_namespace_too(ros, tiny):
    process = ros.run(
        launch(
            "tracker.launch.py",
            f"weights:={tiny}",
            "rgb:=/rgb/image_raw",
            "thermal:=/thermal/image_raw",
            "namespace:=robot/left",
            "log_level:=error",
        )
    )
    ros.spin_until(lambda: ros.hears(ros.rgb) and ros.hears(ros.thermal), "discovery")
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "robot.left.ainet" not in process.text()


@needs_launch
def test_what_is_tracked_is_recorded(ros, tiny, tmp_path):
    import ros_nodes

    from ainet_ros.vision import recording

    pairs, _ = ros_nodes.moving_scene(1)
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    part_mb: 7\n    free_mb: 0\n")
    process = ros.run(
        launch(
            "tracker.launch.py",
            f"weights:={tiny}",
            f"params_file:={parameters}",
            f"record:={tmp_path / 'bags'}",
            "rgb:=/rgb/image_raw",
            "thermal:=/thermal/image_raw",
            "namespace:=robot",
        )
    )
    process.wait_for_log("ready: waiting")
    process.wait_for_log("ready: the tracker has told")
    assert ros.get_parameter("/robot/recorder", "part_mb") == 7
    ros.spin_until(
        lambda: all(p.get_subscription_count() >= 2 for p in (ros.rgb, ros.thermal)), "discovery"
    )
    while "recording into" not in process.text():
        ros.publish(*pairs[0])
        ros.spin_for(0.5)
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.text()
    (run,) = (tmp_path / "bags").iterdir()
    kept = recording.read(run)
    assert kept.answers
    assert kept.parameters["weights"] == tiny


@needs_launch
def test_demo_is_launched_and_starts_its_target(ros, tiny, tmp_path):
    from ainet_ros.msg import Track
    from ainet_ros.vision.scenes import Scene

    Scene(3, frames=8, size=(320, 240)).write(tmp_path / "scene")
    process = ros.run(
        launch("demo.launch.py", f"source:={tmp_path / 'scene'}", f"weights:={tiny}")
    )
    process.wait_for_log("ready:")

    def targets():
        return {track.target_id for track in ros.tracks if track.state != Track.NO_TARGET}

    ros.spin_until(lambda: len(targets()) > 1, "second start, as the recording begins again")
    enclaves = {one[2] for one in ros.node.get_node_names_and_namespaces_with_enclaves()}
    assert enclaves >= {"/ainet", "/replay_camera", "/operator"}
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.text()
