# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros

"""The tracker node as a process, seen from outside."""

import array
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from ament_index_python.packages import get_package_prefix
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, Vector3Stamped
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from ainet_ros.msg import Event, Track
from ainet_ros.ros import messages
from ainet_ros.ros.bearing import ray
from ainet_ros.ros.engine import Engine, OutOfMemory, twice
from ainet_ros.ros.images import decode, to_compressed, to_image
from ainet_ros.ros.pairing import Pair
from ainet_ros.ros.parameters import TrackerParameters
from ainet_ros.ros.settings import Settings
from ainet_ros.tracker import Tracker
from ainet_ros.tracker.tracker import CONFIRMED_IN
from ainet_ros.vision.registration import Calibration

PAIRS, BOXES = ros_nodes.moving_scene(12)
PERIOD_S = 0.2
THRESHOLDS = {"lost_below": 0.0, "found_above": 0.0}  # what tiny weights score means nothing


@pytest.fixture(scope="module")
def running(tiny, tmp_path_factory):
    """One tracker for the tests that leave it as it was."""
    with ros_nodes.client(tmp_path_factory.mktemp("node")) as client:
        client.start_tracker(tiny, **THRESHOLDS)
        yield client


@pytest.fixture
def ros(running):
    """The tracker without a target and with nothing heard of it yet."""
    assert running.reset().success
    running.tracks.clear()
    return running


@pytest.fixture
def fresh(tmp_path):
    """A client of its own, for tests that start their nodes."""
    with ros_nodes.client(tmp_path) as client:
        yield client


def box_of(track):
    return (track.box.x, track.box.y, track.box.width, track.box.height)


def play(client, pairs):
    """Publish pairs at 5 Hz; return their RGB headers."""
    headers = []
    for rgb, thermal in pairs:
        headers.append(client.publish(rgb, thermal))
        client.spin_for(PERIOD_S)
    return headers


def offline(tiny, box, pairs, first=PAIRS[0]):
    """What the tracker itself makes of the pairs after the first."""
    tracker = Tracker.load(tiny)
    tracker.set_thresholds(**THRESHOLDS)
    tracker.init(*first, box)
    return [tracker.track(rgb, thermal) for rgb, thermal in pairs]


def test_every_frame_is_answered_with_its_own_header_and_the_tracker_s_box(ros, tiny):
    first = ros.publish(*PAIRS[0])
    assert ros.answer(first).state == Track.NO_TARGET
    assert ros.init(BOXES[0], first.stamp).success
    headers = play(ros, PAIRS[1:])
    answers = [ros.answer(header) for header in headers]
    assert [answer.header for answer in answers] == headers
    assert [answer.thermal_stamp for answer in answers] == [h.stamp for h in headers]
    for answer, track in zip(answers, offline(tiny, BOXES[0], PAIRS[1:]), strict=True):
        assert box_of(answer) == pytest.approx(track.box, abs=1e-3)
        assert answer.score == pytest.approx(track.score, abs=1e-5)
        assert answer.latency.network_ms > 0
        assert answer.latency.total_ms >= answer.latency.network_ms
    assert len(ros.tracks) == len(PAIRS)


@pytest.mark.parametrize("silent", ["rgb", "thermal"])
def test_tracking_goes_on_in_one_camera_while_the_other_is_silent(tiny, fresh, silent):
    process = fresh.start_tracker(tiny, **THRESHOLDS, degraded_after=0.3)
    events, pictures = [], []
    fresh.node.create_subscription(Event, "ainet/events", events.append, 10)
    fresh.node.create_subscription(Image, "ainet/overlay", pictures.append, 10)
    assert fresh.init(BOXES[0], fresh.track(*PAIRS[0]).header.stamp).success
    play(fresh, PAIRS[1:3])
    assert not fresh.tracks[-1].degraded
    black = [(np.zeros_like(rgb), thermal) if silent == "rgb" else (rgb, np.zeros_like(thermal))
             for rgb, thermal in PAIRS]  # fmt: skip
    half = [(None, thermal) if silent == "rgb" else (rgb, None) for rgb, thermal in PAIRS]
    headers = play(fresh, half[3:8])
    process.wait_for_log(f"DEGRADED: no new image on /{silent}/image_raw for 0.3 s")
    answered = [fresh.answers(header)[0] for header in headers if fresh.answers(header)]
    assert len(answered) >= 3  # those within degraded_after wait for the other camera
    assert all(answer.degraded for answer in answered)
    assert {answer.header.frame_id for answer in answered} == {"rgb_frame"}
    no_stamp = [answer.thermal_stamp == Time() for answer in answered]
    assert set(no_stamp) == {silent == "thermal"}
    first = next(i for i, header in enumerate(headers) if fresh.answers(header))
    expected = offline(tiny, BOXES[0], PAIRS[1:3] + black[3 + first : 8])[2:]
    assert len(expected) == len(answered)
    for answer, track in zip(answered, expected, strict=True):
        assert box_of(answer) == pytest.approx(track.box, abs=1e-3)
    assert [event.event for event in events] == [Event.INIT, Event.DEGRADED]
    headers = play(fresh, PAIRS[8:])
    assert not fresh.answer(headers[-1]).degraded
    assert [event.event for event in events[2:]] == [Event.RESTORED]
    process.wait_for_log("both cameras deliver again")
    fresh.spin_until(lambda: len(pictures) >= 6, "overlay")


def test_ids_count_up_and_come_with_the_answers(ros):
    ros.track(*PAIRS[0])
    first = ros.init(BOXES[0])
    second = ros.init(BOXES[0])
    assert (first.success, second.success) == (True, True)
    assert second.target_id == first.target_id + 1
    assert ros.track(*PAIRS[1]).target_id == second.target_id


def test_normalized_box_means_the_same_as_pixels(ros):
    boxes = []
    height, width = PAIRS[0][1].shape
    for scale, normalized in (((1, 1, 1, 1), False), ((width, height, width, height), True)):
        header = ros.publish(*PAIRS[0])
        ros.answer(header)
        box = np.array(BOXES[0]) / scale
        assert ros.init(box, header.stamp, normalized=normalized).success
        boxes.append(box_of(ros.track(*PAIRS[1])))
    assert boxes[0] == pytest.approx(boxes[1], abs=1e-3)


def test_track_has_the_box_in_fractions_too(ros):
    ros.track(*PAIRS[0])
    assert ros.init(BOXES[0]).success
    track = ros.track(*PAIRS[1])
    height, width = PAIRS[0][1].shape
    part = track.normalized_box
    scaled = (part.x * width, part.y * height, part.width * width, part.height * height)
    assert scaled == pytest.approx(box_of(track))
    assert 0 < part.width < 1


def test_target_is_started_by_a_region_by_clicks_and_by_a_detection(ros):
    """Each of them as ~/init with the same box does."""
    x, y, width, height = map(int, BOXES[0])
    region = ros.node.create_publisher(RegionOfInterest, "ainet/init_box", 10)
    clicks = ros.node.create_publisher(Point, "ainet/overlay_mouse_left", 10)
    starts = [
        (region, [RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)]),
        (clicks, [Point(x=float(x + width), y=float(y)), Point(x=float(x), y=float(y + height))]),
    ]
    if messages.vision_msgs is not None:
        detection = messages.vision_msgs.Detection2D()
        detection.bbox.center.position.x = x + width / 2
        detection.bbox.center.position.y = y + height / 2
        detection.bbox.size_x, detection.bbox.size_y = float(width), float(height)
        kind = messages.vision_msgs.Detection2D
        detections = ros.node.create_publisher(kind, "ainet/init_detection", 10)
        starts.append((detections, [detection]))
    events = []
    subscription = ros.node.create_subscription(Event, "ainet/events", events.append, 10)
    ros.spin_until(lambda: _connected(ros, subscription), "events")
    ros.spin_for(0.3)  # the node may find the listener a little later, and nothing tells
    ros.track(*PAIRS[0])
    assert ros.init(BOXES[0]).success
    expected = box_of(ros.track(*PAIRS[1]))
    for publisher, sent in starts:
        ros.spin_until(lambda p=publisher: ros.hears(p), "discovery")
        ros.track(*PAIRS[0])
        ros.spin_until(lambda: any(event.event == Event.INIT for event in events), "event")
        events.clear()
        for message in sent:
            publisher.publish(message)
        ros.spin_until(lambda: any(event.event == Event.INIT for event in events), "start")
        assert box_of(ros.track(*PAIRS[1])) == pytest.approx(expected, abs=1e-3)
    ros.node.destroy_subscription(subscription)


def test_bearing_of_the_target_where_the_camera_is_calibrated(ros):
    heard = []
    subscription = ros.node.create_subscription(Vector3Stamped, "ainet/bearing", heard.append, 10)
    publisher = ros.node.create_publisher(CameraInfo, "rgb/camera_info", qos_profile_sensor_data)
    height, width = PAIRS[0][1].shape
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    info.k = [100.0, 0.0, width / 2, 0.0, 100.0, height / 2, 0.0, 0.0, 1.0]
    ros.spin_until(lambda: ros.hears(publisher) and _connected(ros, subscription), "discovery")
    ros.track(*PAIRS[0])
    assert ros.init(BOXES[0]).success
    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    while not heard:
        publisher.publish(info)
        track = ros.track(*PAIRS[1])
        ros.spin_for(0.1)
        assert time.monotonic() < deadline
    ros.node.destroy_subscription(subscription)
    message, box = heard[-1], track.box
    expected = ray(info, (width, height), box.x + box.width / 2, box.y + box.height / 2)
    assert message.header == track.header
    vector = message.vector
    assert (vector.x, vector.y, vector.z) == pytest.approx(expected, abs=1e-6)


def test_requests_that_come_all_at_once_are_all_answered(ros):
    ros.track(*PAIRS[0])
    pending = [ros.request_init(BOXES[0]) for _ in range(40)]
    ros.spin_until(lambda: all(future.done() for future in pending), "answers")
    ids = [future.result().target_id for future in pending]
    assert 0 not in ids
    assert ids == sorted(ids)


def test_boxes_that_come_too_quickly_give_way_to_the_newest(tiny, fresh):
    process = fresh.start_tracker(tiny, **THRESHOLDS)
    publisher = fresh.node.create_publisher(RegionOfInterest, "ainet/init_box", 100)
    events = []
    fresh.node.create_subscription(Event, "ainet/events", events.append, 100)
    fresh.spin_until(lambda: fresh.hears(publisher), "discovery")
    first = fresh.track(*PAIRS[0])
    # Of an image that is still to come: it is waited for, and all others wait meanwhile.
    later = Time(sec=first.header.stamp.sec + 100)
    waiting = [fresh.request_init(BOXES[0], later)]
    while "the newest is taken" not in process.text():
        for width in range(20, 30):
            publisher.publish(RegionOfInterest(x_offset=30, y_offset=40, width=width, height=24))
            fresh.spin_for(0.01)
        if waiting[-1].done():
            waiting.append(fresh.request_init(BOXES[0], later))
        assert len(waiting) < 100
    publisher.publish(RegionOfInterest(x_offset=30, y_offset=40, width=31, height=24))
    fresh.spin_until(lambda: events and events[-1].box.width == 31, "the last box")
    assert not any(fresh.result(future).success for future in waiting)
    assert fresh.init(BOXES[0]).success


def test_events_tell_the_life_of_a_target(ros):
    heard = []
    subscription = ros.node.create_subscription(Event, "ainet/events", heard.append, 10)
    try:
        ros.spin_until(lambda: _connected(ros, subscription), "events")
        ros.spin_for(0.3)  # the node may find the listener a little later, and nothing tells
        first_header = ros.publish(*PAIRS[0])
        ros.answer(first_header)
        first = ros.init(BOXES[0]).target_id
        second = ros.init(BOXES[0]).target_id
        ros.set_parameter("ainet", found_above=1.0, lost_below=1.0)  # one after the other
        lost = ros.publish(*PAIRS[1])
        ros.answer(lost)
        ros.set_parameter("ainet", **THRESHOLDS)
        for _ in range(CONFIRMED_IN):
            found = ros.track(*PAIRS[2])
        assert ros.reset().success
        ros.spin_until(lambda: len(heard) >= 6, "events")
    finally:
        ros.set_parameter("ainet", **THRESHOLDS)
        ros.node.destroy_subscription(subscription)
    assert [(event.event, event.target_id) for event in heard] == [
        (Event.INIT, first), (Event.RESET, first), (Event.INIT, second),
        (Event.LOST, second), (Event.FOUND, second), (Event.RESET, second),
    ]  # fmt: skip
    assert heard[0].header == first_header
    assert heard[3].header == lost
    assert heard[4].header == heard[5].header == found.header
    assert heard[4].score == pytest.approx(found.score)


def test_target_drawn_on_a_past_frame_is_caught_up(ros, tiny):
    headers = play(ros, PAIRS[:6])
    ros.answer(headers[-1])
    ros.tracks.clear()
    assert ros.init(BOXES[0], headers[0].stamp).success
    answers = [ros.answer(header) for header in headers[1:]]
    expected = offline(tiny, BOXES[0], PAIRS[1:6])
    assert box_of(answers[-1]) == pytest.approx(expected[-1].box, abs=1e-3)
    assert not ros.answers(headers[0])


def test_targets_are_tracked_beside_one_another(ros, tiny):
    elsewhere = (BOXES[0][0] + 30, *BOXES[0][1:])
    first_header = ros.publish(*PAIRS[0])
    ros.answer(first_header)
    first = ros.init(BOXES[0], first_header.stamp).target_id
    second = ros.init(elsewhere, first_header.stamp, add=True).target_id
    headers = play(ros, PAIRS[1:4])
    expected = [offline(tiny, box, PAIRS[1:4]) for box in (BOXES[0], elsewhere)]
    for header, *tracks in zip(headers, *expected, strict=True):
        ros.spin_until(lambda: len(ros.answers(header)) == 2, "two answers")  # noqa: B023
        answers = ros.answers(header)
        assert [answer.target_id for answer in answers] == [first, second]
        for answer, track in zip(answers, tracks, strict=True):
            assert box_of(answer) == pytest.approx(track.box, abs=1e-2)

    # A third one, drawn on the first frame, is caught up; the others are not tracked twice, and
    # who looks at all of them does not see it alone.
    pictures = []
    look = ros.node.create_subscription(Image, "ainet/overlay", pictures.append, 10)
    ros.spin_until(lambda: _connected(ros, look), "overlay topic")
    third = ros.init(BOXES[0], first_header.stamp, add=True).target_id
    ros.spin_until(lambda: len(ros.answers(headers[-1])) == 3, "three answers")
    ros.spin_for(0.3)
    ros.node.destroy_subscription(look)
    assert not pictures
    for header in headers:
        ids = [answer.target_id for answer in ros.answers(header)]
        assert ids == sorted(set(ids))
    assert ros.reset(first).success
    last = ros.publish(*PAIRS[4])
    ros.spin_until(lambda: len(ros.answers(last)) == 2, "two answers")
    assert {answer.target_id for answer in ros.answers(last)} == {second, third}
    alone = ros.init(BOXES[0]).target_id  # takes the place of all
    assert ros.track(*PAIRS[5]).target_id == alone
    assert len(ros.answers(ros.tracks[-1].header)) == 1


def test_more_targets_than_allowed_are_refused(ros):
    ros.track(*PAIRS[0])
    kept = ros.init(BOXES[0]).target_id
    assert ros.set_parameter("ainet", max_targets=1)[0].successful
    refused = ros.init(BOXES[0], add=True)
    assert not refused.success
    assert "max_targets" in refused.message
    assert ros.track(*PAIRS[1]).target_id == kept
    assert ros.set_parameter("ainet", max_targets=8)[0].successful


def test_a_change_of_parameters_leaves_the_thermal_image_as_it_is(tiny):
    parameters = TrackerParameters(weights=tiny)
    engine = Engine.load(parameters, itertools.count(1))

    def shown(low: int) -> np.ndarray:
        rgb = PAIRS[0][0]
        thermal = np.linspace(low, low + 500, rgb[..., 0].size).astype(np.uint16)
        images = (
            to_image(rgb, "rgb8", Header()),
            to_image(thermal.reshape(rgb.shape[:2]), "mono16", Header()),
        )
        answer = engine.process(Pair(*images, 0, 0), 1, images_wanted=True)
        return answer.images[1]

    cold = shown(20_000)
    engine.apply(Settings.of(dataclasses.replace(parameters, search_windows=2)))
    assert np.array_equal(shown(20_000), cold)
    assert not np.array_equal(shown(22_000), cold)  # which a map without a past would make of it


def test_a_calibration_file_is_read_when_it_is_set_and_not_with_every_change(tmp_path):
    file = tmp_path / "calibration.yaml"
    Calibration(np.eye(3), (32, 24), (32, 24)).save(file)
    parameters = TrackerParameters(registration="homography", calibration_file=str(file))
    assert Settings.of(parameters).registration is not None
    file.unlink()
    assert Settings.of(parameters, {"slop"}).registration is None
    with pytest.raises(FileNotFoundError):
        Settings.of(parameters, {"calibration_file"})


def test_memory_that_ran_out_twice_is_let_go_of():
    """Also what only the error's own traceback still knows."""

    class Activations:
        pass

    taken = []

    def step():
        activations = Activations()
        taken.append(weakref.ref(activations))
        raise MemoryError("no more")

    with pytest.raises(OutOfMemory) as raised:
        twice(step, "the memory does not hold it")
    assert str(raised.value) == "the memory does not hold it (no more)"
    assert [reference() for reference in taken] == [None, None]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("not enough memory: 8 bytes")])
def test_targets_that_the_memory_does_not_hold_are_refused(tiny, monkeypatch, error):
    engine = Engine.load(TrackerParameters(weights=tiny), itertools.count(1))
    rgb, thermal = PAIRS[0]
    pair = Pair(to_image(rgb, "rgb8", Header()), to_image(thermal, "mono8", Header()), 0, 0)
    kept = engine.init(pair, 1, BOXES[0], normalized=False, add=False).target_id

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "advance", fail)
        with pytest.raises(ValueError, match=r"memory of cpu does not hold .* 2 targets"):
            engine.init(pair, 1, BOXES[0], normalized=False, add=True)
    assert list(engine.process(pair, 2, images_wanted=False).tracks) == [kept]


def test_quality_of_service_is_overridden_and_what_does_not_fit_is_said(tiny, fresh):
    process = fresh.start(
        "tracker_node",
        {
            "weights": tiny,
            "qos_overrides./ainet/track.publisher.reliability": "best_effort",
            "qos_overrides./rgb/image_raw.subscription.reliability": "reliable",
            "qos_overrides./rgb/image_raw.subscription.depth": 2,
        },
    )
    process.wait_for_log("ready:")

    def offered(topic, kind):
        infos = getattr(fresh.node, f"get_{kind}_info_by_topic")(topic)
        return [info.qos_profile.reliability for info in infos if info.node_name == "ainet"]

    reliable, best_effort = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
    fresh.spin_until(lambda: offered("/ainet/events", "publishers") == [reliable], "discovery")
    assert offered("/ainet/track", "publishers") == [best_effort]
    assert offered("/rgb/image_raw", "subscriptions") == [reliable]
    assert fresh.get_parameter("ainet", "qos_overrides./rgb/image_raw.subscription.depth") == 2
    # The client itself listens to ~/track reliably.
    process.wait_for_log("qos_overrides./ainet/track.publisher.reliability")
    camera = fresh.node.create_publisher(Image, "rgb/image_raw", qos_profile_sensor_data)
    process.wait_for_log(
        "quality of service on /rgb/image_raw: a publisher offers less and is not heard "
        "(reliability); set it alike on both sides, here by the parameter "
        "qos_overrides./rgb/image_raw.subscription.reliability"
    )
    fresh.node.destroy_publisher(camera)
    assert process.alive()


def test_each_camera_is_heard_as_it_publishes_where_topics_are_swapped(tiny, fresh):
    swapped = ("rgb/image_raw:=/thermal/image_raw", "thermal/image_raw:=/rgb/image_raw")
    process = fresh.start("tracker_node", {"weights": tiny}, "-r", swapped[0], "-r", swapped[1])
    process.wait_for_log("ready:")
    fresh.node.destroy_publisher(fresh.thermal)
    fresh.node.create_publisher(Image, "thermal/image_raw", qos_profile_sensor_data)

    def heard(topic):
        infos = fresh.node.get_subscriptions_info_by_topic(topic)
        return {info.qos_profile.reliability for info in infos if info.node_name == "ainet"}

    fresh.spin_until(lambda: ReliabilityPolicy.RELIABLE in heard("/rgb/image_raw"), "reliability")
    assert heard("/thermal/image_raw") == {ReliabilityPolicy.BEST_EFFORT}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("qos_overrides./rgb/image_raw.subscription.reliability", "perhaps"),
        ("qos_overrides./rgb/image_raw.subscription.depth", "deep"),
        ("qos_overrides./rgb/image_raw.subscription.depth", 0),
        ("qos_overrides./ainet/track.publisher.reliability", "perhaps"),
    ],
)
def test_a_wrong_quality_of_service_is_named(tiny, fresh, name, value):
    process = fresh.start("tracker_node", {"weights": tiny, name: value})
    assert process.wait() == 1
    assert name.rpartition(".")[0] in process.text()
    assert "Traceback" not in process.text()


def test_a_target_is_started_by_parameter(tiny, fresh):
    fresh.start_tracker(tiny, **THRESHOLDS, init_box=",".join(map(str, BOXES[0])))
    headers = play(fresh, PAIRS[:4])
    tracks = [fresh.answer(header) for header in headers[1:]]
    assert {track.target_id for track in tracks} == {1}
    for answer, track in zip(tracks, offline(tiny, BOXES[0], PAIRS[1:4]), strict=True):
        assert box_of(answer) == pytest.approx(track.box, abs=1e-3)
    assert fresh.set_parameter("ainet", init_box="30,40,20,20")[0].successful
    play(fresh, PAIRS[4:6])
    assert fresh.track(*PAIRS[6]).target_id == 2
    refused = fresh.set_parameter("ainet", init_box="30,40,20")[0]
    assert not refused.successful
    assert "x,y,width,height" in refused.reason
    assert fresh.set_parameter("ainet", init_box="")[0].successful
    assert fresh.track(*PAIRS[7]).target_id == 2


def test_init_may_overtake_its_images(ros):
    stamp = ros.now()
    answer = ros.request_init(BOXES[0], stamp)
    ros.spin_for(0.1)
    assert not answer.done()
    ros.publish(*PAIRS[0], stamp)
    assert ros.result(answer).success


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((10, 10, 0, 20), "empty"),
        ((10, 10, 20, -5), "empty"),
        ((float("nan"), 10, 20, 20), "finite"),
        ((10, 10, float("inf"), 20), "finite"),
        ((500, 10, 20, 20), "outside"),
        ((-50, 10, 20, 20), "outside"),
    ],
)
def test_a_wrong_box_is_refused_and_the_target_before_kept(ros, box, text):
    ros.track(*PAIRS[0])
    kept = ros.init(BOXES[0])
    answer = ros.init(box)
    assert not answer.success
    assert text in answer.message
    assert answer.target_id == 0
    assert ros.track(*PAIRS[1]).target_id == kept.target_id


def test_stamps_out_of_reach_are_refused_with_a_remedy(ros):
    header = ros.publish(*PAIRS[0])
    ros.answer(header)
    past = Time(sec=header.stamp.sec - 60, nanosec=header.stamp.nanosec)
    future = Time(sec=header.stamp.sec + 60, nanosec=header.stamp.nanosec)
    answer = ros.init(BOXES[0], past)
    assert not answer.success
    assert "history_s" in answer.message
    answer = ros.init(BOXES[0], future)
    assert not answer.success
    assert "ahead of the newest pair" in answer.message


def test_reset_drops_the_target_and_refuses_another_id(ros):
    ros.track(*PAIRS[0])
    started = ros.init(BOXES[0])
    answer = ros.reset(started.target_id + 7)
    assert not answer.success
    assert str(started.target_id + 7) in answer.message
    assert ros.track(*PAIRS[1]).target_id == started.target_id
    assert ros.reset(started.target_id).success
    track = ros.track(*PAIRS[2])
    assert (track.state, track.target_id) == (Track.NO_TARGET, 0)


def raw(**changes):
    message = to_image(PAIRS[0][0], "rgb8", Header())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("rgb", "thermal", "text"),
    [
        (raw(encoding="jpg2000"), None, "jpg2000"),
        (raw(data=raw().data[:100]), None, "bytes"),
        (raw(step=3), None, "step"),
        (raw(height=0, width=0, step=0), None, "empty"),
        (np.zeros((120, 160), np.uint16), None, "8 bit"),
        (None, raw(encoding="rgb8", step=1), "step"),
    ],
)
def test_a_wrong_image_is_left_out_with_a_word_and_the_next_is_tracked(ros, rgb, thermal, text):
    ros.track(*PAIRS[0])
    assert ros.init(BOXES[0]).success
    rgb = PAIRS[1][0] if rgb is None else rgb
    thermal = PAIRS[1][1] if thermal is None else thermal
    if isinstance(rgb, np.ndarray) and rgb.ndim == 2:
        rgb = to_image(rgb, "mono16", Header())
    said = []
    diagnostics = ros.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda array: said.extend(status.message for status in array.status),
        10,
    )
    try:
        wrong = ros.publish(rgb, thermal)
        assert ros.track(*PAIRS[1]).state != Track.NO_TARGET
        assert not ros.answers(wrong)
        ros.spin_until(
            lambda: any("left out: " in message and text in message for message in said), text
        )
    finally:
        ros.node.destroy_subscription(diagnostics)
    assert ros.processes[0].alive()


def test_thermal_images_of_16_bit_and_of_another_size_are_tracked(ros):
    thermal = [8000 + 10 * heat[::2, ::2].astype(np.uint16) for _, heat in PAIRS]
    ros.track(PAIRS[0][0], thermal[0])
    assert ros.init(BOXES[0]).success
    assert ros.track(PAIRS[1][0], thermal[1]).state != Track.NO_TARGET


def test_rgb_images_in_yuv_are_tracked(ros, tiny):
    def yuyv(rgb):
        grey = rgb[..., 1]
        data = np.stack([grey, np.full_like(grey, 128)], axis=-1)  # no colour
        return raw(
            encoding="yuv422_yuy2",
            step=data[0].size,
            data=array.array("B", data.tobytes()),
        )

    ros.track(yuyv(PAIRS[0][0]), PAIRS[0][1])
    assert ros.init(BOXES[0]).success
    answers = [ros.track(yuyv(rgb), thermal) for rgb, thermal in PAIRS[1:4]]
    seen = [(decode(yuyv(rgb)), thermal) for rgb, thermal in PAIRS[:4]]
    for answer, track in zip(answers, offline(tiny, BOXES[0], seen[1:], seen[0]), strict=True):
        assert box_of(answer) == pytest.approx(track.box, abs=1e-3)


def test_overlay_is_drawn_for_who_looks(ros):
    pictures, compressed = [], []
    looks = [
        ros.node.create_subscription(Image, "ainet/overlay", pictures.append, 10),
        ros.node.create_subscription(
            CompressedImage, "ainet/overlay/compressed", compressed.append, 10
        ),
    ]
    try:
        ros.spin_until(lambda: all(_connected(ros, look) for look in looks), "overlay topics")
        ros.track(*PAIRS[0])
        assert ros.init(BOXES[0]).success
        headers = play(ros, PAIRS[1:4])
        last = headers[-1]
        for shown in (pictures, compressed):
            ros.spin_until(lambda shown=shown: any(p.header == last for p in shown), "overlay")
            assert all(picture.header.frame_id == "rgb_frame" for picture in shown)
        drawn = decode(pictures[-1])
        assert drawn.shape == PAIRS[0][0].shape
        assert decode(compressed[-1]).shape == drawn.shape
        assert (drawn != PAIRS[3][0]).any()
    finally:
        for look in looks:
            ros.node.destroy_subscription(look)


def test_the_rate_of_the_overlay_is_limited(ros):
    pictures = []
    look = ros.node.create_subscription(Image, "ainet/overlay", pictures.append, 10)
    assert ros.set_parameter("ainet", overlay_rate=1 / 60)[0].successful
    try:
        ros.spin_until(lambda: _connected(ros, look), "overlay topic")
        for header in play(ros, PAIRS[:4]):
            ros.answer(header)
        assert ros.set_parameter("ainet", overlay_rate=0.0)[0].successful
        last = ros.publish(*PAIRS[4])
        ros.spin_until(lambda: pictures and pictures[-1].header == last, "overlay")
        assert len(pictures) <= 3  # of the first four one, or for jitter a second
    finally:
        ros.node.destroy_subscription(look)


def test_the_style_of_the_overlay_changes_while_it_runs(ros):
    pictures = []
    look = ros.node.create_subscription(Image, "ainet/overlay", pictures.append, 10)
    assert ros.set_parameter("ainet", overlay_rate=0.0)[0].successful
    try:
        ros.spin_until(lambda: _connected(ros, look), "overlay topic")
        shown = {}
        for style in ("rgb", "thermal", "blend", "inset"):
            assert ros.set_parameter("ainet", overlay_style=style)[0].successful
            last = ros.publish(*PAIRS[0])
            ros.spin_until(lambda last=last: pictures and pictures[-1].header == last, "overlay")
            shown[style] = decode(pictures[-1]).astype(int)
        half = (shown["rgb"] + shown["thermal"]) / 2
        untouched = (shown["rgb"] == PAIRS[0][0]).all(axis=2)  # no words there
        assert untouched.mean() > 0.5
        assert np.abs(shown["blend"] - half)[untouched].max() <= 1
        assert np.abs(shown["thermal"] - shown["rgb"])[untouched].mean() > 5
        corner = shown["inset"] != shown["rgb"]
        assert 0 < corner.any(axis=2).mean() < 0.2
    finally:
        ros.node.destroy_subscription(look)


def _connected(ros, subscription):
    return ros.node.count_publishers(subscription.topic_name) > 0


def test_wrong_parameters_are_refused_with_the_reason_and_the_old_stay(ros):
    for name, value, text in (
        ("slop", -1.0, "slop"),
        ("overlay_quality", 0, "overlay_quality"),
        ("tone_mode", "nicest", "nicest"),
        ("lost_below", 0.1, "found_above"),
        ("registration", "homography", "calibration_file"),
        ("weights", "other", "weights"),
        ("slop", "wide", "type"),
    ):
        before = ros.get_parameter("ainet", name)
        (result,) = ros.set_parameter("ainet", **{name: value})
        assert not result.successful
        assert text in result.reason
        assert ros.get_parameter("ainet", name) == before


def test_thresholds_change_while_it_runs(ros):
    ros.track(*PAIRS[0])
    assert ros.init(BOXES[0]).success
    assert ros.set_parameter("ainet", found_above=1.0)[0].successful
    assert ros.set_parameter("ainet", lost_below=1.0)[0].successful
    try:
        assert ros.track(*PAIRS[1]).state == Track.LOST
    finally:
        assert ros.set_parameter("ainet", lost_below=0.0)[0].successful
        assert ros.set_parameter("ainet", found_above=0.0)[0].successful
    states = [ros.track(*PAIRS[2]).state for _ in range(CONFIRMED_IN)]
    assert states == [Track.LOST] * (CONFIRMED_IN - 1) + [Track.TRACKING]


def test_best_effort_cameras_are_heard_and_reliable_ones_after_them(ros):
    cameras = [
        ros.node.create_publisher(Image, topic, qos_profile_sensor_data)
        for topic in ("rgb/image_raw", "thermal/image_raw")
    ]
    images = [to_image(PAIRS[0][0], "rgb8", Header()), to_image(PAIRS[0][1], "mono8", Header())]
    try:
        ros.spin_until(lambda: all(map(ros.hears, cameras)), "discovery")
        deadline = time.monotonic() + ros_nodes.PATIENCE_S
        while not ros.tracks:  # best effort: one may be lost
            assert time.monotonic() < deadline
            stamp = ros.now()
            for camera, image in zip(cameras, images, strict=True):
                image.header.stamp = stamp
                camera.publish(image)
            ros.spin_for(PERIOD_S)
    finally:
        for camera in cameras:
            ros.node.destroy_publisher(camera)
    ros.spin_for(PERIOD_S)
    assert ros.track(*PAIRS[1]).header.frame_id == "rgb_frame"


@pytest.mark.skipif(messages.vision_msgs is None, reason="vision_msgs is not installed")
def test_detections_are_published_and_empty_without_a_target(ros):
    heard = []
    look = ros.node.create_subscription(
        messages.vision_msgs.Detection2DArray, "ainet/detections", heard.append, 10
    )
    try:
        ros.spin_until(lambda: _connected(ros, look), "detections topic")
        header = ros.publish(*PAIRS[0])
        ros.spin_until(lambda: any(d.header == header for d in heard), "detections")
        assert not heard[-1].detections
        started = ros.init(BOXES[0], header.stamp)
        track = ros.track(*PAIRS[1])
        ros.spin_until(lambda: any(d.header == track.header for d in heard), "detections")
        (detection,) = heard[-1].detections
        assert detection.id == str(started.target_id)
        assert detection.bbox.center.position.x == pytest.approx(track.box.x + track.box.width / 2)
        assert detection.results[0].hypothesis.score == pytest.approx(track.score)
    finally:
        ros.node.destroy_subscription(look)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_with_status_0_and_nothing_of_it_stays(fresh, tiny, number):
    before = shared_segments()
    process = fresh.start_tracker(tiny)
    fresh.publish(*PAIRS[0])
    mapped = process.mapped()
    process.send(number)
    assert process.wait(10) == 0
    assert "Traceback" not in process.text()
    stays = {path for path in shared_segments() - before if str(path) in mapped}
    assert not stays


def shared_segments():
    """The memory in which Fast DDS hands over messages: one for each participant, or two."""
    return {p for p in Path("/dev/shm").glob("fastdds_*") if len(p.name) == len("fastdds_") + 16}


def test_ctrl_c_while_torch_is_imported_ends_the_node_with_status_0(fresh):
    executable = Path(get_package_prefix("ainet_ros"), "lib/ainet_ros/tracker_node")
    process = fresh.run([str(executable)])
    process.wait_for_library("libtorch_cpu")
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert process.text() == ""


def test_compressed_cameras_in_a_namespace_with_16_bit_png(fresh, tiny):
    heard = []
    fresh.node.create_subscription(Track, "robot/ainet/track", heard.append, 10)
    publishers = [
        fresh.node.create_publisher(CompressedImage, f"robot/{name}/image_raw/compressed", 5)
        for name in ("rgb", "thermal")
    ]
    parameters = {
        "weights": tiny,
        "rgb_transport": "compressed",
        "thermal_transport": "compressed",
    }
    process = fresh.start("tracker_node", parameters, "-r", "__ns:=/robot")
    process.wait_for_log("ready:")
    fresh.spin_until(lambda: all(map(fresh.hears, publishers)), "discovery")
    headers = []

    def deliver():  # over and over: an image may come before its subscription is reliable
        header = Header(stamp=fresh.now())
        publishers[0].publish(to_compressed(PAIRS[0][0], "jpeg", header))
        publishers[1].publish(to_compressed(PAIRS[0][1].astype(np.uint16) * 9, "png", header))
        headers.append(header)

    fresh.node.create_timer(PERIOD_S, deliver)
    fresh.spin_until(lambda: heard, "answer")
    assert heard[0].header in headers


def test_no_camera_is_said_and_init_refused(fresh, tiny):
    process = fresh.start_tracker(tiny)
    answer = fresh.init(BOXES[0])
    assert not answer.success
    assert "no pair of images has come in yet" in answer.message
    process.wait_for_log("no image on /rgb/image_raw")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"weights": "no_such_weights"}, "no_such_weights"),
        ({"device": "quantum"}, "quantum"),
        ({"slop": -1.0}, "slop"),
        ({"slop": "wide"}, "slop"),
        ({"registration": "homography", "calibration_file": "none.yaml"}, "none.yaml"),
    ],
)
def test_a_wrong_start_ends_with_status_1_and_the_reason(fresh, tiny, parameters, text):
    process = fresh.start("tracker_node", {"weights": tiny, **parameters})
    assert process.wait() == 1
    assert text in process.text()
    assert "Traceback" not in process.text()


@pytest.mark.parametrize(("given", "taken"), [({}, "5000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_torch_s_threads_wait_briefly_unless_told_otherwise(given, taken):
    environment = {name: v for name, v in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", "import ainet_ros.ros.tracker_node"],
        env={**environment, "OMP_DISPLAY_ENV": "verbose", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch has another OpenMP here than GNU's")
    assert f"GOMP_SPINCOUNT = '{taken}'" in done.stderr
