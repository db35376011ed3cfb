# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Faults put to running nodes: what the user sees, and that the nodes go on.

The docstring of each test is the fault, in docs/reliability.md too, which `make faults` writes.
With its option --page each is tried in full; without, some are shorter, and some are tried in one
of their forms.
"""

import itertools
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

import ros_nodes
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from faults import Fault, section
from geometry_msgs.msg import Vector3Stamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from networks import tiny as tiny_network
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rclpy.time import Time
from reliability import write_section
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from test_launch import launch, needs_launch

from ainet_ros.msg import Track
from ainet_ros.ros.images import to_image
from ainet_ros.tracker import weights
from ainet_ros.tracker.device import out_of_memory
from ainet_ros.vision.encoding import stamp_ns

HERE = Path(__file__).parent
PAIRS, BOXES = ros_nodes.moving_scene(12)
HZ = 10
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
MOST_GROWTH_MIB = 300
"""Of which history_mb are of the pairs kept."""
THRESHOLDS = {"lost_below": 0.0, "found_above": 0.0}  # what tiny weights score means nothing
TIMEOUT_S = 0.5
"""The tracker's camera_timeout, so that less is to be waited for."""
LEVELS = {
    DiagnosticStatus.OK: "OK",
    DiagnosticStatus.WARN: "WARN",
    DiagnosticStatus.ERROR: "ERROR",
}


class Observer(ros_nodes.Client):
    """A client that hears what the nodes say."""

    def __init__(self, folder):
        super().__init__(folder)
        self.status = {}  # the last one of each part
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.faults = folder / "faults"
        self.faults.write_text("")
        self.tracker = None
        self.heard = 0  # of the tracker's log

    def _on_diagnostics(self, array):
        self.status.update((status.name.split(": ")[1], status) for status in array.status)

    def start_faulty_tracker(self, *ros_arguments, **parameters):
        """The tracker, with a network that fails as `fail` says."""
        command = [sys.executable, str(HERE / "faulty_tracker.py"), str(self.faults)]
        return self.run([*command, *ros_nodes.arguments(parameters), *ros_arguments])

    def fail(self, *faults):
        """What becomes of the next runs of the network."""
        self.faults.write_text("".join(f"{fault}\n" for fault in faults))

    def hear(self, fault, pattern, process=None):
        """Wait until the tracker has logged something since the test began."""

        def said():
            text = self.tracker.text()[self.heard :] if process is None else process.text()
            return text if re.search(pattern, text) else ""

        self.spin_until(said, f"{pattern!r} in the log")
        fault.says(said(), pattern)

    def report(self, fault, part, level, pattern):
        """Wait until /diagnostics has a part of the node so."""

        def now():
            status = self.status.get(part)
            return (
                status is not None
                and re.fullmatch(level, LEVELS[status.level])
                and re.search(pattern, status.message)
            )

        self.spin_until(now, f"{level} of the {part}: {pattern}")
        status = self.status[part]
        fault.reported(part, LEVELS[status.level], status.message)

    def value(self, part, key):
        return next(float(v.value) for v in self.status[part].values if v.key == key)

    def change(self, name, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, f"{name}/change_state", request).success

    def state(self, name):
        return self.call(GetState, f"{name}/get_state", GetState.Request()).current_state.id

    def answered(self):
        """Stamps of the answers, in their order."""
        return [stamp_ns(track.header.stamp) for track in self.tracks]


class Cameras:
    """Two cameras, in a context; each is a function of what sends an image, of the number of the
    image, and of the time now."""

    def __init__(self, ros, rgb=None, thermal=None, hz=HZ):
        self._ros, self._hz, self._how = ros, hz, (rgb or on_time, thermal or on_time)
        self._numbers = itertools.count()
        self.stamps = ([], [])

    def __enter__(self):
        self._timer = self._ros.node.create_timer(1 / self._hz, self._tick)
        return self

    def __exit__(self, *_):
        self._ros.node.destroy_timer(self._timer)

    def _tick(self):
        number, now = next(self._numbers), self._ros.node.get_clock().now().nanoseconds
        for side, how in enumerate(self._how):
            how(lambda *shot, side=side: self._send(side, *shot), number, now)

    def _send(self, side, number, stamp):
        self.stamps[side].append(stamp)
        pixels = PAIRS[number % len(PAIRS)][side]
        header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id="camera")
        publisher = (self._ros.rgb, self._ros.thermal)[side]
        publisher.publish(to_image(pixels, ("rgb8", "mono8")[side], header))


def on_time(send, number, now):
    send(number, now)


def silent(send, number, now):
    pass


def same_picture(send, number, now):
    send(0, now)


def twice(send, number, now):
    send(number, now)
    send(number, now)


def an_hour_back(send, number, now):
    send(number, now - HOUR)


def an_hour_ahead(send, number, now):
    send(number, now + HOUR)


def never_stamped(send, number, now):
    send(number, 0)


def once_ahead(send, number, now):
    send(number, now + HOUR if number == HZ // 2 else now)


def hanging():
    """A camera that gives its first image over and over."""
    first = []

    def camera(send, number, now):
        first.append(now)
        send(0, first[0])

    return camera


def late(seconds):
    """A camera whose images come so late, with the stamps of when they were taken."""
    waiting = deque()

    def camera(send, number, now):
        waiting.append((number, now))
        while waiting[0][1] <= now - seconds * SECOND:
            send(*waiting.popleft())

    return camera


def out_of_order():
    """A camera whose every fourth image comes after the next one."""
    held = []

    def camera(send, number, now):
        if number % 4 == 1:
            held.append((number, now))
            return
        send(number, now)
        while held:
            send(*held.pop())

    return camera


@pytest.fixture(scope="module")
def in_full(request):
    return request.config.getoption("--page") is not None


@pytest.fixture(scope="module")
def page(request):
    """The faults that were put to the nodes, which become the section of the page."""
    began = time.monotonic()
    faults, tracker = [], []
    yield faults, tracker
    path = request.config.getoption("--page")
    if path is not None and not request.session.testsfailed:  # else it would not be whole
        text = section(faults, time.monotonic() - began, " ".join(tracker))
        write_section(path, "faults", text)


@pytest.fixture
def fault(request, page):
    """The fault that the test's docstring is."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    one = Fault(" ".join(request.function.__doc__.split()).format(**parameters))
    page[0].append(one)
    return one


@pytest.fixture(scope="module")
def observer(tmp_path_factory):
    one = Observer(tmp_path_factory.mktemp("faults"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def tracked(observer, tiny):
    """One tracker for all faults that it survives; its memory after a first target, in MiB."""
    observer.tracker = observer.start_faulty_tracker(
        weights=tiny, camera_timeout=TIMEOUT_S, **THRESHOLDS
    )
    observer.tracker.wait_for_log("ready:")
    observer.spin_until(
        lambda: observer.hears(observer.rgb) and observer.hears(observer.thermal), "discovery"
    )
    observer.spin_for(0.3)  # the tracker may find the cameras a little later
    follow(observer)
    return observer, observer.tracker.memory_mib()


@pytest.fixture
def ros(tracked):
    """The tracker with a target, and nothing heard of it yet."""
    one = tracked[0]
    one.target_id = follow(one)
    one.status.clear()
    one.heard = len(one.tracker.text())
    one.tracks.clear()
    return one


def follow(ros):
    """Have both cameras deliver until they are answered, and start a target; return its id."""
    with Cameras(ros, hz=3 * HZ) as cameras:
        count = len(ros.tracks)
        ros.spin_until(
            lambda: len(ros.tracks) > count + 1 and not ros.tracks[-1].degraded, "answers"
        )
        started = ros.init(BOXES[0])
        assert started.success, started.message
        ros.spin_until(lambda: ros.tracks[-1].target_id == started.target_id, "target")
    ros.spin_until(lambda: ros.answered()[-1] == cameras.stamps[0][-1], "the last answer")
    return started.target_id


def still_answers(fault, ros):
    """The node tracks, and its services answer."""
    follow(ros)
    assert ros.get_parameter("ainet", "camera_timeout") == TIMEOUT_S
    assert ros.reset().success
    assert ros.state("ainet") == State.PRIMARY_STATE_ACTIVE
    assert "Traceback" not in ros.tracker.text()[ros.heard :] or "RuntimeError" in fault.what
    fault.after = "answers"


# The network


def test_the_network_raises(ros, fault):
    """The network raises an exception (RuntimeError) in three pairs"""
    ros.fail(*["a kernel could not be launched"] * 3)
    with Cameras(ros) as cameras:
        ros.hear(fault, "a pair was left out: RuntimeError: a kernel could not be launched")
        ros.report(fault, "tracker", "ERROR|WARN", "a pair was left out: RuntimeError")
        ros.spin_until(lambda: ros.tracks, "answer")
    assert ros.value("tracker", "pairs failed") >= 1
    assert ros.tracks[0].target_id == ros.target_id
    assert stamp_ns(ros.tracks[0].header.stamp) > cameras.stamps[0][2]
    still_answers(fault, ros)


def test_the_network_s_answer_is_no_number(ros, fault):
    """The network's scores are NaN in one pair"""
    ros.fail("nan")
    header = ros.publish(*PAIRS[1])
    track = ros.answer(header)
    assert (track.state, track.score) == (Track.LOST, 0.0)
    assert all(map(np.isfinite, (track.box.x, track.box.y, track.box.width, track.box.height)))
    fault.notes("`~/track`: LOST, score 0, the last box")
    ros.hear(fault, "the network's answer is no number")
    with Cameras(ros):
        ros.report(fault, "tracker", "WARN", "the network's answer is no number")
        ros.spin_until(lambda: ros.tracks[-1].state == Track.TRACKING, "the target again")
    fault.notes("the target is found again")
    still_answers(fault, ros)


def test_memory_runs_out_once(ros, fault):
    """Memory runs out in the network once"""
    ros.spin_for(0.1)
    ros.fail("memory")
    header = ros.publish(*PAIRS[1])
    assert ros.answer(header).target_id == ros.target_id
    fault.notes("`~/track`: the pair is answered, at a second attempt")
    ros.report(fault, "tracker", "WARN", "memory ran out, a second attempt went well")
    still_answers(fault, ros)


def test_memory_runs_out_twice(ros, fault):
    """Memory runs out in the network, and at the second attempt too"""
    ros.fail("memory", "memory")
    ros.publish(*PAIRS[1])
    ros.hear(fault, "the node has deactivated itself, for the memory of")
    ros.report(fault, "tracker", "ERROR", "the node has deactivated itself")
    ros.spin_until(lambda: ros.state("ainet") == State.PRIMARY_STATE_INACTIVE, "inactive state")
    fault.notes("its state is inactive")
    fault.answered("~/init", ros.init(BOXES[0]).message, "the node has deactivated itself")
    assert not ros.tracks
    ros.spin_until(lambda: not ros.hears(ros.rgb), "silence")
    assert ros.change("ainet", Transition.TRANSITION_ACTIVATE)
    ros.spin_until(lambda: ros.hears(ros.rgb) and ros.hears(ros.thermal), "discovery")
    fault.notes("activated again, it tracks")
    still_answers(fault, ros)


def test_memory_runs_out_for_another_target(ros, fault):
    """Memory runs out as a second target is started"""
    ros.spin_for(0.1)
    ros.fail("memory", "memory")
    refused = ros.init(BOXES[0], add=True)
    assert not refused.success
    fault.answered("~/init", refused.message, "2 targets.*: reset one first")
    assert ros.track(*PAIRS[1]).target_id == ros.target_id
    fault.notes("the first target is tracked on")
    still_answers(fault, ros)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (lambda: torch.empty(1 << 60, dtype=torch.uint8), True),
        (lambda: np.empty(1 << 60, np.uint8), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("not enough memory in this camera"), False),
    ],
)
def test_which_errors_are_of_memory(error, expected):
    if callable(error):
        with pytest.raises((MemoryError, RuntimeError)) as raised:
            error()
        error = raised.value
    assert out_of_memory(error) is expected


# Weights


class Bomb:
    """A pickle of it makes a file as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def missing(path):
    path.unlink()


def truncated(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flipped_in_the_header(path):
    data = bytearray(path.read_bytes())
    data[20] ^= 0x80
    path.write_bytes(data)


def of_another_preset(path):
    other = path.with_name("other.safetensors")
    weights.save(tiny_network(), other)
    with safe_open(path, "pt") as file, safe_open(other, "pt") as foreign:
        metadata = {**file.metadata(), "config": foreign.metadata()["config"]}
    save_file(load_file(path), path, metadata)


def a_pickle(path):
    read = path.with_name("read")
    pickle.loads(pickle.dumps(Bomb(read)))
    assert read.exists()
    path.write_bytes(pickle.dumps(Bomb(path.with_name("it_ran"))))


def a_checkpoint_with_code(path):
    torch.save({"net": Bomb(path.with_name("it_ran"))}, path)


def with_nan(path):
    network = weights.load(path)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    weights.save(network, path)


BAD_WEIGHTS = {
    "is missing": (missing, "no weights file"),
    "is cut off": (truncated, "is damaged"),
    "has one bit flipped among its numbers": (flipped, "do not match their SHA-256"),
    "has one bit flipped in its header": (flipped_in_the_header, "is damaged"),
    "has another preset's configuration": (of_another_preset, "has shape|missing|unexpected"),
    "is a pickle that would run code": (a_pickle, "is no safetensors file"),
    "is a PyTorch checkpoint that would run code": (
        a_checkpoint_with_code, "turned into one by `ainet convert`"
    ),
    "holds a NaN": (with_nan, "holds NaN or infinity"),
}  # fmt: skip


@pytest.fixture(scope="module")
def managed(observer, tmp_path_factory):
    """A node that waits to be configured, and the path of its weights."""
    path = tmp_path_factory.mktemp("managed") / "tiny.safetensors"
    process = observer.start(
        "tracker_node", {"weights": path, "autostart": False}, "-r", "__ns:=/managed"
    )
    return observer, process, path


@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_weights(managed, fault, what):
    """The weights file {what}"""
    damage, words = BAD_WEIGHTS[what]
    observer, process, path = managed
    ros_nodes.save_tiny_weights(path)
    damage(path)
    process.wait_for_log("waiting to be configured")
    heard = len(process.text())
    name = "/managed/ainet"
    assert not observer.change(name, Transition.TRANSITION_CONFIGURE)
    observer.spin_until(lambda: "cannot configure" in process.text()[heard:], "word in the log")
    assert "Traceback" not in process.text()
    fault.says(process.text()[heard:], words)
    assert not path.with_name("it_ran").exists()
    assert observer.state(name) == State.PRIMARY_STATE_UNCONFIGURED
    ros_nodes.save_tiny_weights(path)
    assert observer.change(name, Transition.TRANSITION_CONFIGURE)
    assert observer.change(name, Transition.TRANSITION_CLEANUP)
    fault.after = "stays unconfigured (`autostart` is off); with whole weights it is configured"


# Cameras


@pytest.fixture(params=["rgb", "thermal"])
def camera(request, in_full):
    if request.param == "rgb" and not in_full:
        pytest.skip("of the thermal camera only; in full with --page")
    return request.param


def test_a_camera_is_dead(ros, fault, camera):
    """The {camera} camera dies, and comes back"""
    part = part_of(camera)
    with Cameras(ros, **{camera: silent}):
        ros.hear(fault, f"DEGRADED: no new image on /{camera}/image_raw")
        ros.report(fault, part, "ERROR", f"no image on /{camera}/image_raw")
        ros.spin_until(lambda: ros.tracks and ros.tracks[-1].degraded, "answers in the other")
    with Cameras(ros):
        ros.hear(fault, "both cameras deliver again")
    still_answers(fault, ros)


def test_a_camera_hangs(ros, fault, camera):
    """The {camera} camera hangs: the same image with the same stamp, again and again"""
    with Cameras(ros, **{camera: hanging()}):
        ros.hear(fault, f"DEGRADED: no new image on /{camera}/image_raw")
        ros.report(fault, part_of(camera), "WARN", "have been the same .* does the camera hang")
        ros.report(fault, "tracker", "WARN", "DEGRADED, tracking in")
        ros.spin_until(lambda: ros.tracks and ros.tracks[-1].degraded, "answers in the other")
    with Cameras(ros):
        ros.hear(fault, "both cameras deliver again")
    still_answers(fault, ros)


def test_a_camera_is_frozen(ros, fault, camera):
    """The {camera} camera is frozen: the same picture with new stamps"""
    with Cameras(ros, **{camera: same_picture}):
        ros.report(fault, part_of(camera), "WARN", "have been the same .* does the camera hang")
        count = len(ros.tracks)
        ros.spin_until(lambda: len(ros.tracks) > count + HZ, "answers")
    assert not any(track.degraded for track in ros.tracks)
    fault.notes("`~/track` goes on, with both images")
    with Cameras(ros):
        ros.spin_until(lambda: ros.status[part_of(camera)].level == DiagnosticStatus.OK, "OK")
    still_answers(fault, ros)


def test_images_come_twice(ros, fault):
    """Each image of both cameras comes twice"""
    with Cameras(ros, twice, twice) as cameras:
        ros.spin_until(lambda: len(ros.tracks) > HZ, "answers")
        ros.spin_until(lambda: "RGB camera" in ros.status, "report")
    answered = ros.answered()
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(cameras.stamps[0])
    ros.spin_until(lambda: ros.value("RGB camera", "late or twice") >= HZ, "count of them")
    fault.notes("`~/track`: one answer a pair; `/diagnostics` counts them as late or twice")
    still_answers(fault, ros)


def test_images_come_out_of_order(ros, fault):
    """Every fourth thermal image comes after the next one"""
    with Cameras(ros, thermal=out_of_order()) as cameras:
        ros.spin_until(lambda: len(ros.tracks) > HZ, "answers")
        ros.spin_until(lambda: ros.status.get("thermal camera"), "report")
    answered = ros.answered()
    assert answered == sorted(set(answered))
    share = len(answered) / len(cameras.stamps[0])
    fault.notes("`~/track`: answers in order; those images are left out, and counted as late")
    assert share > 0.5
    assert ros.value("thermal camera", "late or twice") > 0
    still_answers(fault, ros)


def test_a_camera_is_late(ros, fault):
    """The thermal images come 1 s late, at 20 Hz"""
    with Cameras(ros, thermal=late(1.0), hz=20):
        ros.report(fault, "pairing", "ERROR", "images late, raise queue_size")
        ros.tracks.clear()
        assert ros.set_parameter("ainet", queue_size=60)[0].successful
        ros.spin_until(lambda: len(ros.tracks) > 20 and not ros.tracks[-1].degraded, "answers")
        ros.report(fault, "tracker", "WARN", "of the answers take up to")
    assert ros.set_parameter("ainet", queue_size=10)[0].successful
    fault.notes("with `queue_size: 60` pairs are answered again")
    still_answers(fault, ros)


def test_the_clock_of_both_cameras_is_set_back(ros, fault):
    """The stamps of both cameras jump back an hour, and forward again"""
    with Cameras(ros, an_hour_back, an_hour_back) as cameras:
        ros.spin_until(lambda: len(ros.tracks) > HZ, "answers")
    assert set(ros.answered()) <= set(cameras.stamps[0])
    count = len(ros.tracks)
    with Cameras(ros):
        ros.spin_until(lambda: len(ros.tracks) > count + HZ, "answers")
    assert {track.target_id for track in ros.tracks} == {ros.target_id}
    fault.notes("nothing: `~/track` goes on with the stamps that come")
    still_answers(fault, ros)


def test_the_clock_of_one_camera_is_set_back(ros, fault):
    """The stamps of the RGB camera alone jump back an hour"""
    with Cameras(ros, rgb=an_hour_back):
        ros.report(fault, "pairing", "ERROR", "the newest thermal stamp is \\+3[56]..")
    still_answers(fault, ros)


def test_stamps_of_the_future(ros, fault):
    """The stamps of both cameras are an hour ahead of the computer's clock"""
    with Cameras(ros, an_hour_ahead, an_hour_ahead):
        ros.spin_until(lambda: len(ros.tracks) > HZ, "answers")
        assert ros.init(BOXES[0]).success
        ros.spin_until(lambda: "tracker" in ros.status, "report")
    assert all(track.latency.total_ms == 0 for track in ros.tracks[:HZ])
    fault.notes("`~/track` goes on; its latencies are 0, as of another clock")
    still_answers(fault, ros)


def test_one_stamp_of_the_future(ros, fault):
    """One RGB image has a stamp an hour ahead"""
    with Cameras(ros, rgb=once_ahead) as cameras:
        ros.spin_until(lambda: len(cameras.stamps[0]) > 2 * HZ, "images")
    after = set(ros.answered()) & set(cameras.stamps[0][HZ // 2 + 1 :])
    assert len(after) > HZ
    fault.notes("`~/track`: the pairs around it are not answered")
    still_answers(fault, ros)


def test_stamps_are_never_set(ros, fault):
    """The stamps of the thermal camera are 0"""
    with Cameras(ros, thermal=never_stamped):
        ros.hear(fault, "DEGRADED: no new image on /thermal/image_raw")
        ros.report(fault, "pairing", "ERROR", "do not advance; does the driver set them")
        assert ros.tracks[-1].degraded
    still_answers(fault, ros)


def test_a_slow_rate(ros, fault, in_full):
    """Both cameras deliver very slowly"""
    hz = 0.1 if in_full else 0.7
    with Cameras(ros, hz=hz) as cameras:
        ros.report(fault, "RGB camera", "ERROR", "no image on /rgb/image_raw for")
        ros.spin_until(lambda: len(ros.tracks) == 2, "answers")
    assert ros.answered() == cameras.stamps[0]
    fault.notes(f"`~/track`: every pair is answered, at {hz} Hz")
    still_answers(fault, ros)


def test_a_flood(ros, fault, in_full):
    """Both cameras deliver at 500 Hz"""
    stop, sent = threading.Event(), []
    headers = Header(frame_id="camera")
    images = [
        bytearray(serialize_message(to_image(pixels, kind, headers)))
        for pixels, kind in zip(PAIRS[0], ("rgb8", "mono8"), strict=True)
    ]

    def flood():
        due = time.monotonic()
        while not stop.is_set():
            now = time.time_ns()
            for image, publisher in zip(images, (ros.rgb, ros.thermal), strict=True):
                struct.pack_into("<iI", image, 4, *divmod(now, SECOND))
                image[-1] = len(sent) % 256
                publisher.publish(bytes(image))
            sent.append(now)
            due += 1 / 500
            time.sleep(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        ros.spin_for(1.0)
        assert ros.init(BOXES[0]).success  # in the midst of it
        ros.spin_for(4.0 if in_full else 0.5)
        ros.spin_until(lambda: "tracker" in ros.status, "report")
    finally:
        stop.set()
        thread.join()
    ros.spin_for(0.5)
    answered = ros.answered()
    assert set(answered) <= set(sent)
    assert len(answered) > HZ
    rate = len(sent) / (sent[-1] - sent[0]) * SECOND
    fault.notes(
        f"`~/track`: the newest pairs, {len(answered)} of {len(sent)} sent at {rate:.0f} Hz; "
        "`/diagnostics` counts those left out; `~/init` answers meanwhile"
    )
    still_answers(fault, ros)


def test_images_change_their_size(ros, fault):
    """The RGB images become twice as large as a target is tracked, then the thermal ones"""
    before = ros.track(*PAIRS[0])
    rgb = PAIRS[0][0].repeat(2, 0).repeat(2, 1)
    thermal = PAIRS[0][1].repeat(2, 0).repeat(2, 1)
    after = ros.track(rgb, PAIRS[0][1])
    assert after.target_id == before.target_id
    ratio = after.normalized_box.width / before.normalized_box.width
    assert 0.8 < ratio < 1.25, "the box is not of the larger image's pixels"
    ros.report(fault, "tracker", "WARN", "the RGB images are 320x240 now, before 160x120")
    assert ros.track(rgb, thermal).target_id == before.target_id
    fault.notes("`~/track`: the same target, in pixels of the image as it is")
    still_answers(fault, ros)


def test_images_change_their_encoding(ros, fault):
    """The encoding of the RGB images changes to bgr8, mono8 and nonsense, of the thermal ones to
    mono16"""
    header = Header(frame_id="camera")
    rgb, thermal = PAIRS[1]
    for image in (
        to_image(rgb[..., ::-1].copy(), "bgr8", header),
        to_image(rgb[..., 1].copy(), "mono8", header),
    ):
        kept = ros.publish(image, thermal.astype(np.uint16) * 30 + 8000)
        assert ros.answer(kept).target_id == ros.target_id
    wrong = to_image(rgb, "rgb8", header)
    wrong.encoding = "no_such_encoding"
    ros.publish(wrong, thermal)
    ros.report(fault, "tracker", "WARN|ERROR", "a pair of images was left out.*no_such_encoding")
    fault.notes("`~/track`: all others are answered, with the same target")
    still_answers(fault, ros)


def test_the_calibration_changes(ros, fault):
    """The RGB camera's camera_info changes to zeros, to NaN and to a lens that is none"""
    heard = []
    subscription = ros.node.create_subscription(Vector3Stamped, "ainet/bearing", heard.append, 10)
    publisher = ros.node.create_publisher(CameraInfo, "rgb/camera_info", qos_profile_sensor_data)
    height, width = PAIRS[0][1].shape
    good = [100.0, 0.0, width / 2, 0.0, 100.0, height / 2, 0.0, 0.0, 1.0]
    sound = CameraInfo(width=width, height=height, distortion_model="plumb_bob", k=good)
    broken = [
        CameraInfo(width=width, height=height),
        CameraInfo(width=width, height=height, k=[float("nan")] * 9),
        CameraInfo(width=width, height=height, k=good, d=[0.1, 0.1, 0.1]),
    ]
    try:
        ros.spin_until(lambda: ros.hears(publisher), "discovery")
        with Cameras(ros):
            info = ros.node.create_timer(0.05, lambda: publisher.publish(sound))
            ros.spin_until(lambda: heard, "bearing")
            ros.node.destroy_timer(info)
            for one in broken:
                info = ros.node.create_timer(0.05, lambda one=one: publisher.publish(one))
                ros.spin_for(0.3)
                heard.clear()
                count = len(ros.tracks)
                ros.spin_until(lambda n=count: len(ros.tracks) > n + 3, "answers")
                ros.node.destroy_timer(info)
                assert not heard
            ros.hear(fault, "no ~/bearing: the camera's camera_info holds no calibration")
            publisher.publish(sound)
            ros.spin_until(lambda: heard, "bearing again")
        fault.notes("`~/track` goes on; `~/bearing` is there again with a calibration")
    finally:
        ros.node.destroy_subscription(subscription)
        ros.node.destroy_publisher(publisher)
    assert "left out" not in ros.tracker.text()[ros.heard :]
    still_answers(fault, ros)


# Listeners

LISTENER = """
import sys, time
import rclpy
from sensor_msgs.msg import Image
from ainet_ros.msg import Track
rclpy.init()
node = rclpy.create_node("listener")
kept = [node.create_subscription(Track, "ainet/track", print, 10),
        node.create_subscription(Image, "ainet/overlay", print, 10)]
print("never reads", flush=True)
time.sleep(1000)
"""


def test_a_listener_is_slow_or_gone(ros, fault):
    """A subscriber of `~/track` and `~/overlay` never reads, is stopped (SIGSTOP), is killed"""
    listener = ros.run([sys.executable, "-c", LISTENER])
    listener.wait_for_log("never reads")
    topic = "/ainet/overlay"
    ros.spin_until(lambda: ros.node.count_subscribers(topic) > 0, "listener")
    for number in (None, signal.SIGSTOP, signal.SIGKILL):
        if number is not None:
            listener.send(number)
        with Cameras(ros):
            count = len(ros.tracks)
            ros.spin_until(lambda n=count: len(ros.tracks) > n + HZ // 2, "answers")
    listener.wait()
    fault.notes("nothing: others go on hearing answers")
    still_answers(fault, ros)


def test_the_disk_is_full(ros, fault, tmp_path, in_full):
    """The disk is full while it is recorded (no file of the recorder may exceed 24 MB)"""
    rgb, thermal = (pixels.repeat(4, 0).repeat(4, 1) for pixels in PAIRS[0])
    parameters = {"folder": tmp_path / "bags", "part_mb": 1000, "free_mb": 0}
    command = [sys.executable, "-m", "ainet_ros.ros.recorder", *ros_nodes.arguments(parameters)]
    recorder = ros.run(["bash", "-c", 'ulimit -f 24000; exec "$@"', "bash", *command])
    recorder.wait_for_log("ready: the tracker has told")

    def record():
        random = np.random.default_rng(len(ros.tracks)).integers(0, 9, rgb.shape, np.uint8)
        ros.publish(rgb + random, thermal)

    timer = ros.node.create_timer(1 / HZ, record)
    try:
        ros.hear(fault, "not recording: .*File too large", recorder)
        ros.report(fault, "recording", "ERROR", "not recording: ")
        count = len(ros.tracks)
        ros.spin_until(lambda: len(ros.tracks) > count + 3, "answers meanwhile")
        if in_full:
            ros.hear(fault, "recording again", recorder)
    finally:
        ros.node.destroy_timer(timer)
    fault.notes("`~/track` goes on; what was written can be read")
    recorder.send(signal.SIGINT)
    assert recorder.wait() == 0
    still_answers(fault, ros)


def test_nothing_is_lost_and_memory_is_bounded(tracked, page):
    ros, before = tracked
    follow(ros)
    ros.spin_for(0.5)
    ros.status.clear()
    ros.spin_until(lambda: "tracker" in ros.status, "report")
    names = ("tracked through", "left out for newer ones", "failed")
    pairs, *parts = (ros.value("tracker", f"pairs {n}".strip()) for n in ("", *names))
    assert sum(parts) == pairs
    after = ros.tracker.memory_mib()
    assert after - before < MOST_GROWTH_MIB
    answered, left_out, failed = parts
    page[1].append(
        f"Most of them were put to one tracker, one after the other. Of {pairs:.0f} pairs since "
        f"it was activated again it answered {answered:.0f}, left out {left_out:.0f} for newer "
        f"ones, and failed in {failed:.0f}: all are accounted for. It took {before:.0f} MiB "
        f"before, and {after:.0f} MiB after; up to 128 MB (`history_mb`) are of the pairs kept."
    )


# The end


STATES = {
    "unconfigured": [],
    "inactive": [Transition.TRANSITION_CONFIGURE],
    "active": [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE],
    "loading its weights": [],
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def test_signals_in_each_state(observer, tiny, fault, in_full):
    """SIGINT or SIGTERM comes while the tracker is unconfigured, inactive, active, or loads its
    weights"""
    every = list(itertools.product(STATES, SIGNALS))
    chosen = every if in_full else [every[3], every[6]]  # test_node.py has the active state
    nodes = []
    for index, (state, number) in enumerate(chosen):
        name = "nano" if in_full else tiny  # which takes longer
        process = observer.start_faulty_tracker(
            "-r", f"__ns:=/n{index}", weights=name, autostart=False
        )
        nodes.append((f"/n{index}/ainet", state, number, process))
    for name, state, number, process in nodes:
        process.wait_for_log("waiting to be configured")
        for transition in STATES[state]:
            assert observer.change(name, transition)
        if state == "loading its weights":
            heard = process.text().count("loading weights")
            request = ChangeState.Request()
            request.transition.id = Transition.TRANSITION_CONFIGURE
            observer.request(ChangeState, f"{name}/change_state", request)
            observer.spin_until(
                lambda p=process, n=heard: p.text().count("loading weights") > n, "loading"
            )
        process.send(number)
        assert process.wait() == 0, (state, number, process.text())
        # The thread of bondpy, where that is installed, may publish once more and fail.
        assert "Traceback" not in process.text() or "/bondpy.py" in process.text(), state
    fault.notes("nothing")
    fault.after = "ends with exit status 0"


INTERRUPTED = """
import signal, time
from ainet_ros.ros.process import ros
signal.signal(signal.SIGINT, signal.default_int_handler)  # where it is ignored, as after nohup
with ros(None):
    try:
        print("running", flush=True)
        time.sleep(100)
    except KeyboardInterrupt as error:
        raise TypeError("Unable to convert function return value") from error
"""


def test_ctrl_c_while_a_message_is_converted_ends_a_node_with_status_0(observer):
    process = observer.run([sys.executable, "-c", INTERRUPTED])
    process.wait_for_log("running")
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.text()


def start_again(ros, box):
    """What a node does that wants a target tracked on: where there is none, it asks for it with
    the last box. Returns the id."""
    while True:
        ros.tracks.clear()
        ros.spin_until(lambda: ros.tracks, "answers of the tracker")
        if ros.tracks[-1].state != Track.NO_TARGET:
            return ros.tracks[-1].target_id
        request = ros.request_init(box)
        ros.spin_until(lambda: request.done() or ros.tracks[-1].target_id, "start", 5.0)  # noqa: B023


def last_box(ros):
    box = ros.tracks[-1].box
    return (box.x, box.y, box.width, box.height)


def test_killed_and_started_again(ros, tiny, fault):
    """The tracker is killed (SIGKILL) and started again; where `~/track` says NO_TARGET, a client
    asks for its target with the last box"""
    with Cameras(ros):
        ros.spin_until(lambda: ros.tracks, "answer")
        box = last_box(ros)
        ros.tracker.send(signal.SIGKILL)
        ros.tracker.wait()
        ros.tracker = ros.start("tracker_node", {"weights": tiny, **THRESHOLDS})
        ros.tracker.wait_for_log("ready:")
        assert start_again(ros, box) == 1
    fault.notes("`~/track`: silence, NO_TARGET, and then the target, which has the id 1")
    fault.after = "is there again"
    ros.tracker.end()


@needs_launch
def test_killed_and_respawned_by_launch(tiny, fault, tmp_path):
    """The tracker is killed (SIGKILL) under launch, and a client does the same"""
    ros = Observer(tmp_path)
    try:
        process = ros.run(
            launch(
                "tracker.launch.py",
                f"weights:={tiny}",
                "rgb:=/rgb/image_raw",
                "thermal:=/thermal/image_raw",
            )
        )
        process.wait_for_log("ready: waiting")
        ros.spin_until(lambda: ros.hears(ros.rgb) and ros.hears(ros.thermal), "discovery")
        for name, value in THRESHOLDS.items():
            assert ros.set_parameter("ainet", **{name: value})[0].successful
        follow(ros)
        (pid,) = re.findall(
            r"\[tracker_node-\d+\]: process started with pid \[(\d+)\]", process.text()
        )
        box = last_box(ros)
        os.kill(int(pid), signal.SIGKILL)
        ros.spin_until(lambda: process.text().count("ready: waiting") == 2, "second start")
        assert "process has died" in process.text()
        with Cameras(ros):
            assert start_again(ros, box) == 1
        fault.notes("launch logs that the process has died, and starts it again after a second")
        process.send(signal.SIGINT)
        assert process.wait() == 0
    finally:
        ros.close()
    fault.after = "is there again"


@needs_launch
def test_a_tracker_that_cannot_start_ends_launch():
    done = subprocess.run(
        launch("tracker.launch.py", "weights:=no_such_weights"),
        capture_output=True,
        text=True,
        env=ros_nodes.new_environment(),
    )
    text = done.stdout + done.stderr
    assert text.count("process started") == 1
    assert "no weights called 'no_such_weights'" in text


def part_of(camera):
    """As /diagnostics names it."""
    return {"rgb": "RGB camera", "thermal": "thermal camera"}[camera]
