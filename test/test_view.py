# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet view --save`, read back from Rerun's files."""

import sys

import numpy as np
import pytest

from ainet_ros.cli import main
from ainet_ros.vision import overlay
from ainet_ros.vision.scenes import Scene

FRAMES = 4
SIZE = (160, 120)


def saved(path, capsys, *arguments):
    """By entity: the record batches of a file that `ainet view` writes."""
    rrd = pytest.importorskip("rerun.chunk", reason="needs a rerun-sdk that reads its files")
    assert main(["view", *map(str, arguments), "--save", str(path)]) == 0
    assert f"{FRAMES} frames: {path}" in capsys.readouterr().out
    found = {}
    for chunk in rrd.RrdReader(path).stream().to_chunks():
        found.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    return found


def column(batches, name):
    return [value for batch in batches for value in batch.column(name)]


def times(batches):
    """In nanoseconds, sorted."""
    return sorted(time.value for time in column(batches, "time"))


def test_a_scene_is_shown_with_its_true_boxes(tmp_path, capsys):
    scene = Scene(1, frames=FRAMES, size=SIZE)
    scene.write(tmp_path / "scene")
    found = saved(tmp_path / "new" / "scene.rrd", capsys, tmp_path / "scene")
    stamps = [round(number * 1e9 / 30) for number in range(FRAMES)]
    for entity in ("/rgb", "/thermal", "/rgb/truth"):
        assert times(found[entity]) == pytest.approx(stamps, abs=1)
    (half, *_) = column(found["/rgb/truth"], "Boxes2D:half_sizes")
    assert half.as_py()[0] == pytest.approx(scene.boxes[0, 2:] / 2, abs=1e-2)
    assert "/events" not in found


def test_a_recorded_run_is_shown_with_answers_and_events(tmp_path, capsys):
    pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")
    run = write_run(tmp_path / "bags")
    found = saved(tmp_path / "run.rrd", capsys, run)
    stamps = [(10 + number) * 10**9 for number in range(FRAMES)]
    for entity in ("/rgb", "/thermal", "/rgb/targets"):
        assert times(found[entity]) == stamps
    assert times(found["/score/1"]) == stamps[1:3]
    scores = [score.as_py()[0] for score in column(found["/score/1"], "Scalars:scalars")]
    assert scores == pytest.approx([0.5, 0.25])
    texts = [text.as_py()[0] for text in column(found["/events"], "TextLog:text")]
    assert texts == ["INIT target 1", "LOST target 1", "RESET target 1"]
    labels = [label.as_py() for label in column(found["/rgb/targets"], "Boxes2D:labels")]
    assert labels == [[], ["1 TRACKING 0.50"], ["1 LOST 0.25"], []]  # gone after its RESET
    colors = [color.as_py() for color in column(found["/rgb/targets"], "Boxes2D:colors")]
    red, green, blue = overlay.COLORS["LOST"]
    assert colors[2] == [red << 24 | green << 16 | blue << 8 | 255]


def write_run(folder):
    """Four pairs; a target that is started on the first, lost in the third and then dropped."""
    from builtin_interfaces.msg import Time
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header

    from ainet_ros.msg import Box, Event, Track
    from ainet_ros.ros.images import to_image
    from ainet_ros.ros.parts import Message, PartWriter, Topic
    from ainet_ros.ros.recording import RecorderParameters
    from ainet_ros.vision.bag import typestore

    writer = PartWriter(RecorderParameters(folder=str(folder), free_mb=0), typestore())
    image, track, event = "sensor_msgs/msg/Image", "ainet_ros/msg/Track", "ainet_ros/msg/Event"
    box = Box(x=10.0, y=20.0, width=30.0, height=40.0)
    states = [Track.NO_TARGET, Track.TRACKING, Track.LOST, Track.NO_TARGET]
    events = [Event.INIT, None, Event.LOST, Event.RESET]
    for number, (state, happened) in enumerate(zip(states, events, strict=True)):
        header = Header(stamp=Time(sec=10 + number))
        rgb = to_image(np.full((120, 160, 3), 50 * number, np.uint8), "rgb8", header)
        thermal = to_image(np.full((60, 80), 50 * number, np.uint8), "mono8", header)
        answer = Track(header=header, thermal_stamp=header.stamp, state=state)
        if state != Track.NO_TARGET:
            answer.target_id, answer.score, answer.box = 1, 0.5 / number, box
        said = [
            (Topic("/rgb/image_raw", image), rgb),
            (Topic("/thermal/image_raw", image), thermal),
            (Topic("/ainet/track", track), answer),
        ]
        if happened is not None:
            message = Event(header=header, event=happened, target_id=1)
            said.append((Topic("/ainet/events", event), message))
        writer.put([Message(topic, serialize_message(message)) for topic, message in said])
    writer.close(30.0)
    return writer.status.run


def test_without_rerun(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", str(tmp_path)]) == 2
    assert "pip install rerun-sdk" in capsys.readouterr().err


def test_what_cannot_be_shown_or_written(tmp_path, capsys):
    pytest.importorskip("rerun", reason="needs rerun-sdk")
    assert main(["view", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such recording" in capsys.readouterr().err
    (tmp_path / "metadata.yaml").touch()
    assert main(["view", str(tmp_path), "--rate", "0"]) == 2
    assert "--rate: a bag is shown by its stamps" in capsys.readouterr().err
    Scene(1, frames=2, size=SIZE).write(tmp_path / "scene")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "x.rrd"
    assert main(["view", str(tmp_path / "scene"), "--save", str(out)]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
