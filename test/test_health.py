# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the node reports on /diagnostics."""

import itertools
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_msgs.msg import Float64, Header

from ainet_ros.ros import health
from ainet_ros.ros.health import Health, statuses
from ainet_ros.ros.images import to_image
from ainet_ros.ros.pairing import NearestTime
from ainet_ros.ros.parameters import TrackerParameters
from ainet_ros.tracker import State, Timing, Track

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PARTS = ["RGB camera", "thermal camera", "pairing", "tracker"]


class Rig:
    """Cameras and a tracker on a clock of the test's own."""

    def __init__(self, monkeypatch, **parameters):
        self.now = 100.0
        monkeypatch.setattr(health.time, "monotonic", lambda: self.now)
        self.parameters = TrackerParameters(**parameters)
        self.pairing = NearestTime(
            round(self.parameters.slop * 1e9),
            10,
            alone_ns=round(self.parameters.degraded_after * 1e9),
        )
        self.health = Health(["/rgb", "/thermal"], self.pairing)

    def play(self, seconds, rgb=None, thermal=None, latency_ms=0.0):
        """Cameras of given rates from stamp = clock; thermal: (rate, seconds that it is late)."""
        end = self.now + seconds
        events = (
            [(self.now + k / rgb, "rgb", 0.0) for k in range(int(seconds * rgb))] if rgb else []
        )
        if thermal:
            rate, late = thermal
            events += [(self.now + k / rate, "thermal", late) for k in range(int(seconds * rate))]
        looked = self.now
        report = None
        for at, name, late in sorted(events):
            self.now = at
            stamp = round((at - late) * 1e9)
            add = getattr(self.pairing, f"add_{name}")
            for _ in add(stamp, name):
                track = Track((1, 2, 3, 4), 0.9, State.TRACKING, Timing(1, 1, 1))
                self.health.answered({1: track}, latency_ms)
            if at - looked >= 1:
                looked, report = at, self.health.look(0)
        self.now = end
        report = self.health.look(0)
        found = statuses("robot/ainet", report, self.parameters, "cpu")
        assert [status.name for status in found] == [f"robot/ainet: {part}" for part in PARTS]
        return dict(zip(PARTS, found, strict=True))


def values(status):
    return {pair.key: pair.value for pair in status.values}


def test_a_good_run_is_ok(monkeypatch):
    found = Rig(monkeypatch).play(8, rgb=10, thermal=(10, 0.004), latency_ms=40.0)
    assert [status.level for status in found.values()] == [OK] * 4
    assert float(found["RGB camera"].message.removesuffix(" Hz")) == pytest.approx(10, abs=0.5)
    assert values(found["RGB camera"])["topic"] == "/rgb"
    assert float(values(found["pairing"])["thermal less RGB stamp (ms)"]) == pytest.approx(
        -4, abs=0.1
    )
    assert float(values(found["pairing"])["pairs (Hz)"]) == pytest.approx(10, abs=0.5)
    assert found["tracker"].message == "1 tracking"
    assert values(found["tracker"])["stamp to answer, 95 % (ms)"] == "40.0"
    assert float(values(found["tracker"])["memory (MiB)"]) > 10
    assert found["tracker"].hardware_id == "cpu"


def test_a_camera_that_falls_silent_is_said(monkeypatch):
    rig = Rig(monkeypatch)
    rig.play(6, rgb=10, thermal=(10, 0.0))
    found = rig.play(3, thermal=(10, 0.0))
    assert (found["RGB camera"].level, found["thermal camera"].level) == (ERROR, OK)
    assert found["tracker"].level == WARN
    assert found["tracker"].message == "DEGRADED, tracking in /thermal alone; 1 tracking"
    found = rig.play(6, rgb=10, thermal=(10, 0.0))
    assert found["tracker"].message == "1 tracking"


def test_a_thermal_image_that_is_off_is_warned_of(monkeypatch):
    rig = Rig(monkeypatch)
    for _ in range(2):
        rig.health.fits(0.05)
    found = rig.play(8, rgb=10, thermal=(10, 0.0))
    assert found["pairing"].level == OK
    rig.health.fits(0.06)
    found = rig.play(2, rgb=10, thermal=(10, 0.0))
    assert found["pairing"].level == WARN
    assert "5.0% of the width off" in found["pairing"].message
    assert "ainet calibrate" in found["pairing"].message
    for _ in range(2):
        rig.health.fits(0.01)
    assert rig.play(2, rgb=10, thermal=(10, 0.0))["pairing"].level == OK


def test_slow_answers_are_warned_of(monkeypatch):
    found = Rig(monkeypatch, latency_warn=30.0).play(8, 10, (10, 0.0), latency_ms=40.0)
    assert found["tracker"].level == WARN
    assert "take up to 40 ms" in found["tracker"].message


def test_a_dead_camera_is_an_error_and_comes_back(monkeypatch):
    rig = Rig(monkeypatch)
    rig.play(6, 10, (10, 0.0))
    found = rig.play(3, rgb=10)
    assert found["RGB camera"].level == OK
    assert found["thermal camera"].level == ERROR
    assert "no image on /thermal for 3 s" in found["thermal camera"].message
    assert rig.play(6, 10, (10, 0.0))["thermal camera"].level == OK


def test_a_camera_never_heard_is_an_error(monkeypatch):
    found = Rig(monkeypatch).play(3)
    assert found["RGB camera"].level == found["thermal camera"].level == ERROR
    assert found["tracker"].message == "no target"
    assert "stamp to answer, 95 % (ms)" not in values(found["tracker"])


def test_images_that_come_and_are_all_the_same_are_warned_of(monkeypatch):
    rig = Rig(monkeypatch)
    for seconds in range(5):
        rig.health.saw(SimpleNamespace(data=[seconds]), 0)
        rig.health.saw(SimpleNamespace(data=[7]), 1)
        found = rig.play(1, 10, (10, 0.0))
    assert (found["RGB camera"].level, found["thermal camera"].level) == (OK, WARN)
    assert "the images on /thermal have been the same for 4 s" in found["thermal camera"].message
    rig.health.saw(SimpleNamespace(data=[8]), 1)
    assert rig.play(1, 10, (10, 0.0))["thermal camera"].level == OK


def test_a_camera_that_hangs_costs_one_comparison_a_look(monkeypatch):
    class Picture(list):
        compared = 0

        def __ne__(self, other):
            Picture.compared += 1
            return super().__ne__(other)

    rig = Rig(monkeypatch)
    for _ in range(2):
        for _ in range(30):
            rig.health.saw(SimpleNamespace(data=Picture([7])), 0)
        rig.play(1, 10, (10, 0.0))
    assert 0 < Picture.compared <= 2 * 3  # `play` looks up to three times


def test_pairs_that_failed_are_said_and_counted(monkeypatch):
    rig = Rig(monkeypatch)
    rig.play(1, 10, (10, 0.0))
    rig.health.failed("a pair was left out: why")
    found = rig.play(1, 10, (10, 0.0))["tracker"]
    assert found.level == WARN
    assert found.message == "a pair was left out: why; 1 tracking"
    assert values(found)["pairs failed"] == "1"
    assert int(values(found)["pairs"]) == int(values(found)["pairs tracked through"])
    assert rig.play(6, 10, (10, 0.0))["tracker"].level == OK
    rig.play(6)
    rig.health.failed("a pair was left out: why")
    assert rig.play(1)["tracker"].level == ERROR  # and none went well


def test_what_was_wrong_with_an_answer_is_warned_of(monkeypatch):
    rig = Rig(monkeypatch)
    rig.play(1, 10, (10, 0.0))
    rig.health.answered({}, 0.0, "odd")
    assert rig.play(1, 10, (10, 0.0))["tracker"].message == "odd; 1 tracking"


def test_streams_apart_are_an_error_with_the_remedy(monkeypatch):
    found = Rig(monkeypatch).play(8, 10, (10, 3.0))
    assert found["pairing"].level == ERROR
    assert "-3.0" in found["pairing"].message
    assert "raise slop, or set thermal_offset" in found["pairing"].message


def test_images_without_a_partner_are_warned_of_but_not_those_to_spare(monkeypatch):
    # A thermal camera of a third of the rate: every one of its images has a partner.
    assert Rig(monkeypatch).play(8, 30, (10, 0.0))["pairing"].level == OK
    # Half of the thermal images are too far off.
    rig = Rig(monkeypatch, slop=0.01)
    for _ in range(8):
        rig.play(0.5, 10, (10, 0.0))
        found = rig.play(0.5, 10, (10, 0.04))
    assert found["pairing"].level == WARN
    assert "find no partner" in found["pairing"].message


def test_node_reports_what_becomes_of_its_cameras(tmp_path):
    pairs, boxes = ros_nodes.moving_scene(8)
    tiny = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    with ros_nodes.client(tmp_path) as client:
        heard, times = [], []
        client.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
        client.node.create_subscription(
            Float64, "ainet/debug/processing_time_ms", times.append, 10
        )
        process = client.start_tracker(tiny, lost_below=0.0, found_above=0.0)
        both = True

        moving = itertools.cycle(pairs)

        def deliver():
            rgb, thermal = next(moving)
            now = Header(stamp=client.now())
            client.rgb.publish(to_image(rgb, "rgb8", now))
            if both:
                client.thermal.publish(to_image(thermal, "mono8", now))

        client.node.create_timer(0.1, deliver)

        def levels():
            return [status.level for status in heard[-1].status] if heard else []

        client.spin_until(lambda: levels() == [OK] * 4, "good report")
        assert client.init(boxes[0]).success
        client.spin_until(
            lambda: heard[-1].status[-1].message == "1 tracking" and times, "target in the report"
        )
        assert times[-1].data > 0
        assert heard[-1].status[0].name == "ainet: RGB camera"
        assert heard[-1].header.stamp.sec > 0
        both = False
        client.spin_until(lambda: levels()[1:2] == [ERROR], "dead camera in the report")
        assert levels()[0] == OK
        process.wait_for_log("no image on /thermal/image_raw")
        both = True
        client.spin_until(lambda: levels()[1] == OK, "camera back in the report")
