# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# ruff: noqa: E402 - without ROS the rest is not imported
"""The tracker among what comes and goes: clocks, bags, cameras, other trackers."""

import signal

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")
rosbags = pytest.importorskip("rosbags.rosbag2", reason="needs rosbags")

import ros_nodes
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import serialize_message
from rclpy.time import Time
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ainet_ros.msg import Box, Track
from ainet_ros.ros.images import to_image
from ainet_ros.srv import InitTarget
from ainet_ros.vision.encoding import stamp_ns

PAIRS, BOXES = ros_nodes.moving_scene(8)
PERIOD_NS = 200_000_000
TICK_NS = 2_000_000
"""Of the bag's clock: shorter than any answer takes."""
LONG_AGO_NS = 1_500_000_000_000_000_000
THRESHOLDS = {"lost_below": 0.0, "found_above": 0.0}  # what tiny weights score means nothing


def write_bag(path):
    types = get_typestore(Stores.LATEST)
    with rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as bag:
        connections = [
            bag.add_connection(topic, "sensor_msgs/msg/Image", typestore=types)
            for topic in ("/rgb/image_raw", "/thermal/image_raw")
        ]
        for index, pair in enumerate(PAIRS):
            stamp = LONG_AGO_NS + index * PERIOD_NS
            header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id="camera")
            for connection, pixels in zip(connections, pair, strict=True):
                kind = "rgb8" if pixels.ndim == 3 else "mono8"
                bag.write(connection, stamp, serialize_message(to_image(pixels, kind, header)))


def play(ros, path, clock):
    """As `ros2 bag play --clock` does; the bag's time goes on between the messages."""
    publishers = {"/rgb/image_raw": ros.rgb, "/thermal/image_raw": ros.thermal}
    with AnyReader([path]) as bag:
        last = None
        for connection, time, data in bag.messages():
            tick(ros, clock, last or time, time)
            last = time
            clock.publish(Clock(clock=Time(nanoseconds=time).to_msg()))
            publishers[connection.topic].publish(data)
        tick(ros, clock, last, last + PERIOD_NS)


def tick(ros, clock, begin, end):
    """Let the bag's clock run from `begin` to `end`, as quickly as this machine's."""
    for now in range(begin, end, TICK_NS):
        clock.publish(Clock(clock=Time(nanoseconds=now).to_msg()))
        ros.spin_for(TICK_NS / 1e9)


def test_a_bag_is_played_over_and_over_by_its_own_clock(ros, tiny, tmp_path):
    write_bag(tmp_path / "bag")
    clock = ros.node.create_publisher(Clock, "/clock", 10)
    reports = []
    ros.node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    process = ros.start_tracker(tiny, use_sim_time=True, **THRESHOLDS)
    stamps = [LONG_AGO_NS + index * PERIOD_NS for index in range(len(PAIRS))]
    play(ros, tmp_path / "bag", clock)
    assert ros.init(BOXES[0], Time(nanoseconds=stamps[0]).to_msg()).success
    # From the pair that the box was drawn on to the end, and then the bag from its beginning.
    ros.spin_until(lambda: ros.tracks[-1].target_id and stamp_of(ros) == stamps[-1], "catching up")
    for _ in range(2):
        ros.tracks.clear()
        play(ros, tmp_path / "bag", clock)
        ros.spin_until(lambda: ros.tracks and stamp_of(ros) == stamps[-1], "last answer")
        answered = [stamp_ns(track.header.stamp) for track in ros.tracks]
        assert answered == sorted(answered)
        assert answered[0] == stamps[0]
        assert set(answered) <= set(stamps)
        assert {track.target_id for track in ros.tracks} == {1}
        # By the bag's clock: by this machine's they are years old, and have no latency.
        assert any(0 < track.latency.total_ms < 2000 for track in ros.tracks)
    (pairing,) = (s for s in reports[-1].status if s.name == "ainet: pairing")
    assert pairing.level == DiagnosticStatus.OK, pairing.message
    assert "Traceback" not in process.text()


def stamp_of(ros):
    return stamp_ns(ros.tracks[-1].header.stamp)


def test_two_trackers_side_by_side_one_ends_and_comes_back(ros, tiny):
    heard = {"left": [], "right": []}
    cameras = {}
    for side, tracks in heard.items():
        ros.node.create_subscription(Track, f"/{side}/ainet/track", tracks.append, 100)
        cameras[side] = [
            ros.node.create_publisher(Image, f"/{side}/{name}/image_raw", 10)
            for name in ("rgb", "thermal")
        ]

    def start(side):
        process = ros.start(
            "tracker_node", {"weights": tiny, **THRESHOLDS}, "-r", f"__ns:=/{side}"
        )
        process.wait_for_log("ready:")
        find_each_other(side, 0)
        return process

    def publish(side, index):
        header = Header(stamp=ros.now(), frame_id=side)
        for publisher, pixels in zip(cameras[side], PAIRS[index], strict=True):
            kind = "rgb8" if pixels.ndim == 3 else "mono8"
            publisher.publish(to_image(pixels, kind, header))
        return header

    def find_each_other(side, index):
        """Only an answer tells that cameras and tracker have: a tracker that was killed counts as
        a listener for seconds yet."""
        heard[side].clear()

        def is_answered():
            publish(side, index)
            return heard[side]

        ros.spin_until(is_answered, f"answer of {side}")

    def track(side, index):
        header = publish(side, index)
        tracks = heard[side]
        ros.spin_until(lambda: tracks and tracks[-1].header == header, f"answer of {side}")
        return tracks[-1]

    def init(side):
        x, y, width, height = BOXES[0]
        request = InitTarget.Request(box=Box(x=x, y=y, width=width, height=height))
        return ros.call(InitTarget, f"/{side}/ainet/init", request)

    left, right = start("left"), start("right")
    for side in heard:
        track(side, 0)
    assert init("left").success
    assert track("left", 1).target_id == 1
    assert track("right", 1).state == Track.NO_TARGET  # it is not the other's target
    assert init("right").success

    left.send(signal.SIGKILL)
    left.wait()
    assert track("right", 2).target_id == 1
    # A camera that is started anew goes on in another publisher, of which the node knows nothing.
    for publisher in cameras["right"]:
        ros.node.destroy_publisher(publisher)
    cameras["right"] = [
        ros.node.create_publisher(Image, f"/right/{name}/image_raw", 10)
        for name in ("rgb", "thermal")
    ]
    start("left")
    find_each_other("right", 2)
    assert track("right", 3).target_id == 1
    assert track("left", 3).state == Track.NO_TARGET
    assert init("left").success
    assert track("left", 4).target_id == 1
    assert right.alive()
