# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros

"""The camera node alone, with the tracker, and the demo that runs both: processes over DDS."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from ainet_ros.msg import Track
from ainet_ros.ros.images import decode
from ainet_ros.ros.replay_camera import thermal_as
from ainet_ros.tracker import Tracker
from ainet_ros.vision.encoding import stamp_ns
from ainet_ros.vision.scenes import Scene
from ainet_ros.vision.sources import open_source

FRAMES = 12


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording") / "scene"
    Scene(3, frames=FRAMES, size=(320, 240)).write(folder)
    return folder


class Heard:
    """What a camera node published."""

    def __init__(self, ros, kind=Image, suffix=""):
        self.rgb, self.thermal, self.frames = [], [], []
        for kept, topic in ((self.rgb, "rgb"), (self.thermal, "thermal")):
            ros.node.create_subscription(kind, f"{topic}/image_raw{suffix}", kept.append, 50)
        ros.node.create_subscription(Header, "replay_camera/frame", self.frames.append, 50)

    def of_frame(self, messages, number, offset_ns=0):
        """The newest message of a frame."""
        stamps = {stamp_ns(f.stamp) + offset_ns for f in self.frames if f.frame_id == str(number)}
        return [m for m in messages if stamp_ns(m.header.stamp) in stamps][-1]


def start_paused(ros, heard, **parameters):
    """A camera that repeats its first pair until what it says is heard."""
    camera = ros.start("replay_camera", {"rate": 20.0, "paused": True, **parameters})
    ros.spin_until(lambda: heard.rgb and heard.thermal and heard.frames, "images")
    return camera


def test_every_pair_of_a_recording_comes_in_order_with_equal_stamps(ros, recording):
    heard = Heard(ros)
    camera = start_paused(ros, heard, source=recording)
    assert ros.set_parameter("replay_camera", paused=False)[0].successful
    ros.spin_until(lambda: not camera.alive(), "end")
    assert camera.wait() == 0
    numbers = [int(frame.frame_id) for frame in heard.frames]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(FRAMES))
    stamps = [stamp_ns(image.header.stamp) for image in heard.rgb]
    assert stamps == sorted(set(stamps))
    frames = list(open_source(recording))
    for number in (1, FRAMES - 1):
        rgb = heard.of_frame(heard.rgb, number)
        assert rgb.header.frame_id == "rgb_optical_frame"
        np.testing.assert_array_equal(decode(rgb), frames[number].rgb)
        thermal = heard.of_frame(heard.thermal, number)
        np.testing.assert_array_equal(decode(thermal), frames[number].thermal)


def test_simulated_time_need_not_have_begun(ros, recording):
    heard = Heard(ros)
    camera = start_paused(ros, heard, source=recording, use_sim_time=True)
    assert stamp_ns(heard.rgb[0].header.stamp) < 10**9
    assert camera.alive()


HELD_UP = """
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("held_up")
node.create_subscription(
    Image,
    "rgb/image_raw",
    lambda image: print(image.header.stamp.sec * 10**9 + image.header.stamp.nanosec, flush=True),
    qos_profile_sensor_data,
)
rclpy.spin(node)
"""


def test_large_images_outlast_a_reader_that_is_held_up(ros):
    """Best effort, 921,600 bytes each: more than Fast DDS's own shared memory holds."""
    heard = Heard(ros)
    start_paused(ros, heard, rate=10.0)
    assert len(heard.rgb[0].data) == 640 * 480 * 3
    reader = ros.run([sys.executable, "-c", HELD_UP])
    ros.spin_until(lambda: reader.text(), "image")
    reader.send(signal.SIGSTOP)
    sent = len(heard.rgb)
    ros.spin_until(lambda: len(heard.rgb) >= sent + 4, "images")
    meanwhile = [stamp_ns(image.header.stamp) for image in heard.rgb[sent + 1 : sent + 4]]
    reader.send(signal.SIGCONT)
    ros.spin_until(lambda: str(meanwhile[-1]) in reader.text(), "images after the pause")
    assert {str(stamp) for stamp in meanwhile} <= set(reader.text().split())


def test_offset_and_encodings(ros, recording):
    heard = Heard(ros)
    start_paused(
        ros,
        heard,
        source=recording,
        rgb_encoding="bgra8",
        thermal_encoding="mono16",
        thermal_offset=0.015,
    )
    ros.spin_until(lambda: len(heard.thermal) > 2, "images")
    first = next(iter(open_source(recording)))
    assert heard.rgb[0].encoding == "bgra8"
    np.testing.assert_array_equal(decode(heard.rgb[0]), first.rgb)
    thermal = heard.of_frame(heard.thermal, 0, offset_ns=15_000_000)
    assert thermal.encoding == "mono16"
    np.testing.assert_array_equal(decode(thermal), thermal_as(first.thermal, "mono16")[0])


def test_compressed_topics_and_loop(ros, recording):
    heard = Heard(ros, CompressedImage, "/compressed")
    start_paused(
        ros,
        heard,
        source=recording,
        rgb_transport="compressed",
        thermal_transport="compressed",
        loop=True,
    )
    assert ros.set_parameter("replay_camera", paused=False)[0].successful

    def went_round():
        numbers = [int(frame.frame_id) for frame in heard.frames]
        return FRAMES - 1 in numbers and 0 in numbers[numbers.index(FRAMES - 1) :]

    ros.spin_until(went_round, "second round")
    assert decode(heard.rgb[0]).shape == (*decode(heard.thermal[0]).shape[:2], 3)


def test_thermal_pixels_as_asked_for():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    counts = grey.astype(np.uint16) * 900
    assert thermal_as(grey, "auto")[1] == "mono8"
    assert thermal_as(np.dstack([grey] * 3), "auto")[1] == "rgb8"
    assert thermal_as(counts, "auto")[1] == "mono16"
    assert thermal_as(grey, "16UC1")[0].dtype == np.uint16
    assert thermal_as(grey, "8UC3")[0].shape == (3, 4, 3)
    np.testing.assert_array_equal(thermal_as(counts, "mono16")[0], counts)
    with pytest.raises(ValueError, match="16"):
        thermal_as(counts, "mono8")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [({"source": "no/such/place"}, "no/such/place"), ({"rate": -1.0}, "rate")],
)
def test_a_wrong_start_ends_with_status_1_and_the_reason(ros, parameters, text):
    camera = ros.start("replay_camera", parameters)
    assert camera.wait() == 1
    assert text in camera.text()
    assert "Traceback" not in camera.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_camera_with_status_0(ros, recording, number):
    heard = Heard(ros)
    camera = start_paused(ros, heard, source=recording)
    camera.send(number)
    assert camera.wait(10) == 0


def test_camera_and_tracker_answer_every_frame_at_5_hz_as_offline(ros, tiny, recording):
    """Three processes: camera, tracker, and this one, which calls the services."""
    heard = Heard(ros)
    ros.start("tracker_node", {"weights": tiny, "lost_below": 0.0, "found_above": 0.0})
    camera = start_paused(ros, heard, source=recording, rate=5.0)
    ros.spin_until(lambda: ros.tracks, "answer")
    source = open_source(recording)
    assert ros.init(source.boxes[0]).success
    assert ros.set_parameter("replay_camera", paused=False)[0].successful
    ros.spin_until(lambda: not camera.alive(), "end")
    first, *rest = source
    tracker = Tracker.load(tiny)
    tracker.set_thresholds(lost_below=0.0, found_above=0.0)
    tracker.init(first.rgb, first.thermal, tuple(source.boxes[0]))
    # While the camera paused, the node went on tracking in its first pair.
    shown = [int(frame.frame_id) for frame in heard.frames]
    tracked = {stamp_ns(t.header.stamp): t for t in ros.tracks if t.state != Track.NO_TARGET}
    begun = min(tracked)
    repeats = [f for f in heard.frames if f.frame_id == "0" and stamp_ns(f.stamp) >= begun]
    for _ in repeats:
        tracker.track(first.rgb, first.thermal)
    assert shown[-len(rest) :] == list(range(1, FRAMES))
    for frame, pair in zip(heard.frames[-len(rest) :], rest, strict=True):
        ros.spin_until(
            lambda f=frame: any(t.header.stamp == f.stamp for t in ros.tracks), "answer"
        )
        answer = next(t for t in ros.tracks if t.header.stamp == frame.stamp)
        image = next(i for i in heard.rgb if i.header.stamp == frame.stamp)
        assert answer.header == image.header
        box = (answer.box.x, answer.box.y, answer.box.width, answer.box.height)
        track = tracker.track(pair.rgb, pair.thermal)
        assert box == pytest.approx(track.box, abs=1.0)
        assert answer.score == pytest.approx(track.score, abs=1e-3)


def run_demo(tmp_path, *arguments):
    """The demo as its users run it; its output folder and what it printed."""
    output = tmp_path / "demo_output"
    command = [sys.executable, "-m", "ainet_ros.ros.demo", "--output", str(output), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=ros_nodes.new_environment()
    )
    return done, output


def test_demo_leaves_video_boxes_and_summary(tmp_path, tiny, recording):
    done, output = run_demo(
        tmp_path, "--sequence", str(recording), "--weights", tiny, "--rate", "5"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames"] == summary["answered"] == FRAMES - 1
    assert 0 <= summary["auc"] <= 1
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert (output / "summary.txt").read_text().strip() in done.stdout
    assert len((output / "boxes.txt").read_text().splitlines()) == FRAMES
    assert (output / "track.mp4").stat().st_size > 1000
    assert "fps" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--weights", "no_such_weights"], "no_such_weights"),
        (["--sequence", "no/such/place"], "no/such/place"),
        (["--rate", "-3"], "--rate"),
    ],
)
def test_demo_fails_with_the_reason(tmp_path, arguments, text):
    done, _ = run_demo(tmp_path, *arguments)
    assert done.returncode != 0
    assert text in done.stderr
    assert "Traceback" not in done.stderr
