# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Runs of real nodes that the recorder wrote, read back and repeated."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")
pytest.importorskip("rosbags", reason="needs rosbags")

import ros_nodes
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Writer
from std_msgs.msg import Header

from ainet_ros.evaluation import one_pass
from ainet_ros.files import write_whole
from ainet_ros.msg import Event, Track
from ainet_ros.ros.images import to_image
from ainet_ros.ros.parts import Message, PartWriter, Topic
from ainet_ros.ros.recorder import serialized_stamp_ns
from ainet_ros.ros.recording import RecorderParameters, UnansweredImages
from ainet_ros.tracker import Tracker
from ainet_ros.vision import boxes as box_files
from ainet_ros.vision import recording
from ainet_ros.vision.bag import BagSource, holds_messages, opened, typestore
from ainet_ros.vision.encoding import stamp_ns
from ainet_ros.vision.scenes import Scene
from ainet_ros.vision.sources import open_source

PAIRS, BOXES = ros_nodes.moving_scene(12)
PERIOD_S = 0.2
# What tiny weights score means nothing; a busy computer is no silent camera.
SETTINGS = {"lost_below": 0.0, "found_above": 0.0, "degraded_after": 60.0}
SMALL = {"free_mb": 0, "part_mb": 1}


def start_recorder(ros, folder, *arguments, **parameters):
    """A recorder that hears the client's cameras: pairs without a target are answered first."""
    recorder = ros.start("recorder", {"folder": folder, **SMALL, **parameters}, *arguments)
    recorder.wait_for_log("ready: the tracker has told")
    wait_for_images(ros, lambda: play(ros, PAIRS[:1]))
    ros.spin_for(0.5)
    ros.tracks.clear()
    return recorder


def wait_for_images(ros, meanwhile):
    """Until two pairs are recorded, by what the recorder says of itself."""
    counts = []

    def hear(array):
        for status in array.status:
            if status.name.endswith("recorder: recording"):
                counts.append(int({v.key: v.value for v in status.values}["images"]))

    subscription = ros.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    while not counts or counts[-1] < 4:
        assert time.monotonic() < deadline, counts
        meanwhile()
    ros.node.destroy_subscription(subscription)


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


def follow(ros, pairs):
    """Publish each pair when the one before is answered."""
    for pair in pairs:
        ros.track(*pair)


def repeat(run, output):
    """What `ainet track` says of a recording; a process as the node is, with as many threads."""
    command = [sys.executable, "-m", "ainet_ros.cli", "track", str(run), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def offline(tiny):
    tracker = Tracker.load(tiny)
    tracker.set_thresholds(SETTINGS["lost_below"], SETTINGS["found_above"])
    return tracker


def test_a_camera_s_run_is_recorded_in_parts_and_tracked_again(ros, tiny, tmp_path):
    scene = Scene(3, frames=14, size=(320, 240))
    scene.write(tmp_path / "scene")
    jpeg = {"rgb_transport": "compressed"}  # the recorder hears of it from the tracker
    ros.start("tracker_node", {"weights": tiny, **SETTINGS, **jpeg}).wait_for_log("ready:")
    recorder = ros.start("recorder", {"folder": tmp_path / "bags", **SMALL})
    recorder.wait_for_log("ready: the tracker has told")
    playing = {"source": tmp_path / "scene", "rate": 5.0, "paused": True, **jpeg}
    camera = ros.start("replay_camera", {**playing, "thermal_encoding": "mono16"})
    wait_for_images(ros, lambda: ros.spin_for(PERIOD_S))
    box = scene.boxes[0]
    start = ros.tracks[-1].header.stamp
    assert ros.init(box, start).success
    assert ros.set_parameter("replay_camera", paused=False)[0].successful
    ros.spin_until(lambda: not camera.alive(), "end of the recording")
    stop(ros, recorder)

    run = the_run(tmp_path / "bags")
    assert len(list(run.glob("part_*"))) > 1
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

    printed = repeat(run, tmp_path / "out")
    assert (
        f"target 1 as recorded in {len(heard) + 1} pairs: largest difference 0 pixels" in printed
    )
    assert "not repeated" not in printed
    written = box_files.read(tmp_path / "out" / "boxes.txt")
    expected = [event.box, *(said[stamp].box for stamp in sorted(said))]
    assert written == pytest.approx(np.array(expected), abs=1e-3)
    frames = [frame.stamp_ns for frame in open_source(run)]
    # The recorder may have heard answers before it heard the cameras.
    answered = sorted({answer.stamp_ns for answer in kept.answers})
    assert frames == [stamp for stamp in answered if stamp >= frames[0]]
    assert frames[0] <= stamp_ns(start)
    # Each part is a bag of its own.
    for part in sorted(run.glob("part_*")):
        with opened(part) as bag:
            assert bag.message_count > 0


def test_an_older_pair_that_nobody_answered_is_kept_with_its_target(ros, tiny, tmp_path):
    """Pairs come in a burst, which the tracker skips through; it is then told to go back."""
    tracker = ros.start_tracker(tiny, **SETTINGS, catch_up_s=20.0, history_s=20.0)
    recorder = start_recorder(ros, tmp_path / "bags")
    header = ros.publish(*PAIRS[0])
    ros.answer(header)
    for _ in range(8):  # to have something to do
        assert ros.init(BOXES[0], header.stamp, add=True).success
    skipped = []
    while not skipped or skipped[0] > 2:  # there is one in between
        tracker.send(signal.SIGSTOP)
        headers = play(ros, PAIRS[1:6])
        tracker.send(signal.SIGCONT)
        ros.answer(headers[-1])
        skipped = [number for number in range(4) if not ros.answers(headers[number])]
    first = skipped[0]
    assert ros.init(BOXES[1 + first], headers[first].stamp).success
    ros.spin_until(lambda: ros.answers(headers[-1])[-1].target_id == 9, "answer to the newest")
    headers += play(ros, PAIRS[6:9])
    ros.answer(headers[-1])
    stop(ros, recorder)

    run = the_run(tmp_path / "bags")
    kept = recording.read(run)
    told = [answer.stamp_ns for answer in kept.answers]
    assert stamp_ns(headers[first].stamp) not in told
    assert told != sorted(told)  # it went back
    with opened(run) as bag:
        images = [c for c in bag.connections if c.msgtype == "sensor_msgs/msg/Image"]
        stamps = [(c.topic, serialized_stamp_ns(data)) for c, _, data in bag.messages(images)]
    assert len(stamps) == len(set(stamps))  # each image once, however many answers name it
    answers = [answer for answer in kept.answers if answer.target_id == 9]
    start = kept.events[-1]
    assert (start.event, start.target_id) == ("INIT", 9)
    source = BagSource(
        run,
        None,
        "rgb/image_raw",
        "thermal/image_raw",
        [start.pair, *(answer.pair for answer in answers)],
    )
    result = one_pass.run(offline(tiny), source, start.box)
    told = np.array([start.box, *(answer.box for answer in answers)])
    assert result.boxes == pytest.approx(told, abs=0.1)  # the node has other threads
    sent = {stamp_ns(h.stamp): pair for h, pair in zip(headers, PAIRS[1:9], strict=True)}
    for frame in source:
        rgb, thermal = sent[frame.stamp_ns]
        np.testing.assert_array_equal(frame.rgb, rgb)
        np.testing.assert_array_equal(frame.thermal, thermal)


@pytest.mark.parametrize("silent", ["rgb", "thermal"])
def test_a_silent_camera_is_repeated(ros, tiny, tmp_path, silent):
    ros.start_tracker(tiny, **{**SETTINGS, "degraded_after": 0.3})
    recorder = start_recorder(ros, tmp_path / "bags")
    header = ros.publish(*PAIRS[0])
    ros.answer(header)
    assert ros.init(BOXES[0], header.stamp).success
    follow(ros, PAIRS[1:3])
    play(ros, [(None, t) if silent == "rgb" else (rgb, None) for rgb, t in PAIRS[3:9]])
    follow(ros, PAIRS[9:])
    assert any(track.degraded for track in ros.tracks)
    stop(ros, recorder)
    run = the_run(tmp_path / "bags")
    printed = repeat(run, tmp_path / "out")
    assert f"recorded in {len(ros.tracks)} pairs: largest difference 0 pixels" in printed
    assert "DEGRADED" in [event.event for event in recording.read(run).events]


def test_a_target_that_is_started_in_one_camera_is_repeated(ros, tiny, tmp_path):
    ros.start_tracker(tiny, **{**SETTINGS, "degraded_after": 0.3})
    recorder = start_recorder(ros, tmp_path / "bags")
    follow(ros, PAIRS[:1])
    while not ros.tracks[-1].degraded:
        play(ros, [(None, PAIRS[0][1])])
    assert ros.init(BOXES[0]).success
    play(ros, [(None, thermal) for _, thermal in PAIRS[1:4]])
    follow(ros, PAIRS[4:6])
    tracked = [track for track in ros.tracks if track.target_id]
    stop(ros, recorder)
    run = the_run(tmp_path / "bags")
    (start,) = [event for event in recording.read(run).events if event.event == "INIT"]
    assert start.pair == (0, start.stamp_ns)
    printed = repeat(run, tmp_path / "out")
    assert f"recorded in {len(tracked) + 1} pairs: largest difference 0 pixels" in printed


def test_parameters_and_topics_are_those_of_the_tracker(ros, tiny, tmp_path):
    """Other names, another namespace, settings that change the boxes; one is changed later."""
    remaps = ["-r", "__ns:=/robot", "-r", "rgb/image_raw:=/rgb/image_raw"]
    remaps += ["-r", "thermal/image_raw:=/thermal/image_raw"]
    settings = {**SETTINGS, "tone_mode": "minmax", "registration": "none"}
    tracker = ros.start("tracker_node", {"weights": tiny, **settings}, *remaps)
    tracker.wait_for_log("ready:")
    ros.node.create_subscription(Track, "/robot/ainet/track", ros.tracks.append, 100)
    recorder = start_recorder(ros, tmp_path / "bags", *remaps)
    counts = [(rgb, thermal.astype(np.uint16) * 30 + 7000) for rgb, thermal in PAIRS]
    header = ros.publish(*counts[0])
    ros.answer(header)
    x, y, width, height = (str(value) for value in BOXES[0])
    assert ros.set_parameter("/robot/ainet", init_box=",".join((x, y, width, height)))[
        0
    ].successful
    ros.publish(*counts[1])  # the target starts in it: it may have no answer
    tracker.wait_for_log("init: done")
    follow(ros, counts[2:6])
    stop(ros, recorder)
    run = the_run(tmp_path / "bags")
    with opened(run) as bag:
        assert set(bag.topics) >= {"/robot/rgb/image_raw", "/robot/thermal/image_raw"}
    kept = recording.read(run)
    assert kept.parameters["tone_mode"] == "minmax"
    assert kept.changed == ["init_box"]
    printed = repeat(run, tmp_path / "out")
    assert "largest difference 0 pixels" in printed
    assert "not repeated" not in printed
    # A file of parameters as any other: another tracker starts with it.
    again = ros.start("tracker_node", {}, "--params-file", str(run / "parameters.yaml"))
    again.wait_for_log("ready:")
    assert ros.get_parameter("ainet", "tone_mode") == "minmax"


def test_a_tracker_that_dies_before_it_tells_its_parameters_is_asked_no_more(ros, tiny, tmp_path):
    dying = ros.start_tracker(tiny, **SETTINGS)
    dying.send(signal.SIGSTOP)
    recorder = ros.start("recorder", {"folder": tmp_path / "bags", **SMALL})
    recorder.wait_for_log("listening to")
    ros.spin_for(2.0)  # it has asked, and is not answered
    dying.send(signal.SIGKILL)
    ros.start("tracker_node", {"weights": tiny, **SETTINGS, "tone_mode": "minmax"})
    recorder.wait_for_log("ready: the tracker has told")


def test_the_parameters_are_those_of_the_first_target_s_tracker(ros, tiny, tmp_path):
    """Trackers that are started again, before there was a target and after."""
    before = ros.start_tracker(tiny, **SETTINGS, tone_mode="percentile")
    recorder = start_recorder(ros, tmp_path / "bags")
    before.send(signal.SIGINT)
    before.wait()
    for told, tone_mode in enumerate(("minmax", "fixed"), start=2):
        tracker = ros.start_tracker(tiny, **SETTINGS, tone_mode=tone_mode)
        while recorder.text().count("ready: the tracker has told") < told:
            ros.spin_for(0.1)
        ros.tracks.clear()
        while not ros.tracks:  # until it hears the cameras, which the recorder does already
            play(ros, PAIRS[:1])
        assert ros.init(BOXES[0]).success
        follow(ros, PAIRS[1:3])
        tracker.send(signal.SIGINT)
        tracker.wait()
    stop(ros, recorder)
    kept = recording.read(the_run(tmp_path / "bags"))
    assert [event.event for event in kept.events].count("INIT") == 2
    assert kept.parameters["tone_mode"] == "minmax"


def test_a_change_of_parameters_is_said(ros, tiny, tmp_path):
    ros.start_tracker(tiny, **SETTINGS)
    recorder = start_recorder(ros, tmp_path / "bags")
    header = ros.publish(*PAIRS[0])
    ros.answer(header)
    assert ros.init(BOXES[0], header.stamp).success
    follow(ros, PAIRS[1:3])
    assert ros.set_parameter("ainet", found_above=1.0, lost_below=0.9)[1].successful
    follow(ros, PAIRS[3:6])
    assert ros.tracks[-1].state == Track.LOST
    stop(ros, recorder)
    printed = repeat(the_run(tmp_path / "bags"), tmp_path / "out")
    assert "not repeated: changes of found_above, lost_below" in printed
    assert "largest difference 0 pixels" not in printed


def test_what_a_killed_recorder_wrote_can_be_read(ros, tiny, tmp_path):
    ros.start_tracker(tiny, **SETTINGS)
    recorder = start_recorder(ros, tmp_path / "bags", part_mb=2)
    pairs, boxes = ros_nodes.moving_scene(16, (480, 640))
    header = ros.publish(*pairs[0])
    ros.answer(header)
    assert ros.init(boxes[0], header.stamp).success
    follow(ros, pairs[1:])
    ros.spin_for(0.5)
    recorder.send(signal.SIGKILL)
    recorder.wait()
    run = the_run(tmp_path / "bags")
    parts = sorted(run.glob("part_*"))
    closed = [part for part in parts if (part / "metadata.yaml").exists()]
    assert len(closed) >= 4
    assert parts[-1] not in closed
    kept = recording.read(run)
    tracked = [answer for answer in kept.answers if answer.target_id]
    # All but what had not left the process: the last megabyte, which is less than a pair.
    heard = [track for track in ros.tracks if track.target_id]
    assert len(heard) - 1 <= len(tracked) <= len(heard)
    in_closed = sum(len(recording.read(part).answers) for part in closed)
    assert len(kept.answers) >= in_closed
    printed = repeat(run, tmp_path / "out")
    assert "largest difference 0 pixels" in printed


def test_a_recorder_without_a_folder_says_so(ros):
    recorder = ros.start("recorder", {})
    assert recorder.wait() == 1
    assert "folder: say where to record" in recorder.text()


def test_a_folder_that_cannot_be_written_is_said_and_tried_again(ros, tiny, tmp_path):
    heard = []
    ros.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda array: heard.extend(array.status), 10
    )

    def levels():
        return [status.level for status in heard if status.name == "recorder: recording"]

    (tmp_path / "bags").write_text("no folder")
    ros.start_tracker(tiny, **SETTINGS)
    recorder = start_recorder(ros, tmp_path / "bags")
    header = ros.publish(*PAIRS[0])
    ros.answer(header)
    recorder.wait_for_log("not recording: ")
    assert str(tmp_path / "bags") in recorder.text()
    ros.spin_until(lambda: DiagnosticStatus.ERROR in levels(), "error in /diagnostics")
    ros.track(*PAIRS[1])  # the tracker goes on
    (tmp_path / "bags").unlink()
    pairs = iter(PAIRS * 20)
    while "recording into" not in recorder.text():
        play(ros, [next(pairs)])
    heard.clear()
    ros.spin_until(lambda: DiagnosticStatus.OK in levels() or DiagnosticStatus.WARN in levels(),
                   "recovery in /diagnostics")  # fmt: skip
    ros.track(*PAIRS[2])
    stop(ros, recorder)
    assert recording.read(the_run(tmp_path / "bags")).answers


RGB = Topic("/rgb/image_raw", "sensor_msgs/msg/Image")
THERMAL = Topic("/thermal/image_raw", "sensor_msgs/msg/Image")
TRACK = Topic("/ainet/track", "ainet_ros/msg/Track")
EVENT = Topic("/ainet/events", "ainet_ros/msg/Event")
PIXELS = np.zeros((400, 500, 3), np.uint8)


@pytest.fixture(scope="module")
def types():
    return typestore()


def an_image(number):
    header = Header(stamp=Time(sec=number))
    return serialize_message(to_image(PIXELS, "rgb8", header))


def write(folder, types, count, **parameters):
    writer = PartWriter(RecorderParameters(folder=str(folder), **{**SMALL, **parameters}), types)
    for number in range(1, count + 1):
        writer.put([Message(RGB, an_image(number))], images=True)
    writer.close(30.0)
    return writer.status


def stamps(path):
    with opened(path) as bag:
        return [serialized_stamp_ns(data) // 10**9 for _, _, data in bag.messages()]


def test_parts_are_bounded_and_the_oldest_make_room(tmp_path, types):
    first = write(tmp_path / "bags", types, 8, total_mb=5).run
    kept = stamps(first)
    assert kept == list(range(9 - len(kept), 9))  # the newest
    sizes = [sum(f.stat().st_size for f in part.iterdir()) for part in first.glob("part_*")]
    assert len(sizes) > 2
    assert sum(sizes) <= 5_000_000
    assert max(sizes) < 1_600_000  # part_mb, and the message that goes over it
    second = write(tmp_path / "bags", types, 8, total_mb=5).run
    assert stamps(second) == kept
    assert not first.exists()  # it made room
    third = write(tmp_path / "bags", types, 8, total_mb=0).run
    assert stamps(third) == list(range(1, 9))
    assert stamps(second) == kept


def test_other_files_in_the_folder_are_left_alone(tmp_path, types):
    mine = tmp_path / "bags" / "holiday" / "part_1"
    mine.mkdir(parents=True)
    (mine / "film.mcap").write_bytes(bytes(9_000_000))
    write(tmp_path / "bags", types, 8, total_mb=2)
    assert (mine / "film.mcap").exists()


def test_a_file_among_the_parts_is_none(tmp_path, types):
    run = write(tmp_path / "bags", types, 3, total_mb=0).run
    (run / "part_000000.tar.gz").write_bytes(bytes(9))  # somebody packed it
    assert stamps(run) == [1, 2, 3]
    status = write(tmp_path / "bags", types, 3, total_mb=2)
    assert (status.messages, status.trouble) == (3, "")


def test_a_part_that_could_not_be_begun_is_tried_again(tmp_path, types, monkeypatch):
    monkeypatch.setattr("ainet_ros.ros.parts.RETRY_S", 0.0)
    begin = Writer.open
    failures = iter([OSError(28, "No space left on device")])

    def fails_once(writer):
        begin(writer)
        for error in failures:
            raise error

    monkeypatch.setattr(Writer, "open", fails_once)
    status = write(tmp_path / "bags", types, 3)
    assert (status.dropped, status.messages, status.trouble) == (1, 2, "")
    assert stamps(status.run) == [2, 3]


def test_a_recording_that_is_deleted_meanwhile_begins_anew(tmp_path, types, monkeypatch):
    monkeypatch.setattr("ainet_ros.ros.parts.RETRY_S", 0.0)
    writer = PartWriter(RecorderParameters(folder=str(tmp_path / "bags"), **SMALL), types)
    writer.keep_parameters("slop: 0.1")
    writer.put([Message(RGB, an_image(1))])
    while writer.status.messages < 1:
        time.sleep(0.01)
    shutil.rmtree(writer.status.run)
    writer.put([Message(RGB, an_image(2))])
    while not writer.status.trouble:
        time.sleep(0.01)
    assert "has been deleted or moved" in writer.status.trouble
    writer.put([Message(RGB, an_image(3))])
    writer.close(30.0)
    status = writer.status
    assert (status.messages, status.dropped, status.trouble) == (2, 1, "")
    assert stamps(status.run) == [3]
    assert (status.run / "parameters.yaml").read_text() == "slop: 0.1"


def test_parameters_that_could_not_be_written_are_written_later(tmp_path, types, monkeypatch):
    monkeypatch.setattr("ainet_ros.ros.parts.RETRY_S", 0.0)
    failures = iter([OSError(28, "No space left on device")])

    def fails_once(path, data):
        for error in failures:
            raise error
        write_whole(path, data)

    monkeypatch.setattr("ainet_ros.ros.parts.write_whole", fails_once)
    writer = PartWriter(RecorderParameters(folder=str(tmp_path / "bags"), **SMALL), types)
    writer.keep_parameters("slop: 0.1")
    for number in (1, 2):
        writer.put([Message(RGB, an_image(number))])
    writer.close(30.0)
    assert (writer.status.run / "parameters.yaml").read_text() == "slop: 0.1"


def track_of(target_id, number, **fields):
    """A message of the tracker about a pair of the `number`th second."""
    stamp = Time(sec=number)
    track = Track(header=Header(stamp=stamp), target_id=target_id, thermal_stamp=stamp, **fields)
    return Message(TRACK, serialize_message(track))


def init_of(target_id, number):
    stamp = Time(sec=number)
    event = Event(
        header=Header(stamp=stamp), target_id=target_id, event=Event.INIT, thermal_stamp=stamp
    )
    return Message(EVENT, serialize_message(event))


def record(folder, types, messages):
    writer = PartWriter(RecorderParameters(folder=str(folder), **SMALL), types)
    for message in messages:
        writer.put([message])
    writer.close(30.0)
    return writer.status.run


def test_a_tracker_that_was_started_again_has_another_target_of_the_same_id(tmp_path, types):
    images = [Message(topic, an_image(n)) for n in range(1, 8) for topic in (RGB, THERMAL)]
    lives = [init_of(1, 1), *(track_of(1, n) for n in (2, 3))]
    lives += [init_of(1, 5), *(track_of(1, n) for n in (6, 7))]
    target = recording.first_target(
        record(tmp_path, types, images + lives), None, "rgb/image_raw", "thermal/image_raw"
    )
    assert [frame.stamp_ns // 10**9 for frame in target.source] == [1, 2, 3]


def test_answers_of_a_bag_that_was_played_in_a_loop_are_refused(tmp_path, types):
    images = [Message(topic, an_image(n)) for n in (1, 2) for topic in (RGB, THERMAL)]
    loop = [init_of(1, 1), track_of(1, 2), track_of(1, 1), track_of(1, 2)]
    run = record(tmp_path, types, images + loop)
    with pytest.raises(ValueError, match="played in a loop"):
        recording.first_target(run, None, "rgb/image_raw", "thermal/image_raw")


def test_a_camera_that_was_silent_all_along_is_black(tmp_path, types):
    images = [Message(THERMAL, an_image(n)) for n in (1, 2)]
    answers = [track_of(0, n, degraded=True) for n in (1, 2)]
    run = record(tmp_path, types, images + answers)
    topics = ("rgb/image_raw", "thermal/image_raw")
    source = BagSource(run, None, *topics, recording.read(run).pairs)
    frames = list(source)
    assert [frame.stamp_ns // 10**9 for frame in frames] == [1, 2]
    assert all(not frame.rgb.any() and frame.rgb.shape == PIXELS.shape for frame in frames)
    with pytest.raises(ValueError, match="no image topic rgb/image_raw; its image topics are"):
        BagSource(run, None, *topics)


def test_a_disk_that_is_too_full_is_left_alone(tmp_path, types):
    status = write(tmp_path / "bags", types, 3, free_mb=2**31 - 1)
    assert "MB are free on the disk, and free_mb asks for 2147483647" in status.trouble
    assert (status.dropped, status.messages, status.run) == (3, 0, None)


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = [{test!r}]
import test_recording as t
resource.setrlimit(resource.RLIMIT_FSIZE, (2_600_000, 2_600_000))
status = t.write(Path({folder!r}), t.typestore(), 12, part_mb=100)
print(status.dropped, status.trouble)
"""


def test_a_write_that_fails_is_said_and_what_was_written_stays(tmp_path):
    """As on a disk that is full: no file may grow beyond 2.6 MB."""
    code = LIMITED.format(test=str(Path(__file__).parent), folder=str(tmp_path / "bags"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dropped, trouble = done.stdout.strip().split(" ", 1)
    assert int(dropped) > 0
    assert "File too large" in trouble
    found = stamps(the_run(tmp_path / "bags"))
    assert found == [1, 2, 3, 4]  # in whole chunks of two


def test_a_slow_disk_costs_images_that_are_counted(tmp_path, types, monkeypatch):
    begin = PartWriter._begin

    def slowly(self):
        time.sleep(1.0)
        return begin(self)

    monkeypatch.setattr(PartWriter, "_begin", slowly)
    status = write(tmp_path / "bags", types, 12, memory_mb=2)
    assert status.dropped > 0
    assert status.messages + status.dropped == 12
    assert len(stamps(status.run)) == status.messages


def test_what_is_left_of_a_file_cut_anywhere(tmp_path, types):
    """Each cut of a part gives a beginning of what it held, or nothing."""
    run = write(tmp_path / "bags", types, 5, part_mb=100).run
    (file,) = run.glob("part_*/*.mcap")
    (file.parent / "metadata.yaml").unlink()
    whole = file.read_bytes()
    found = set()
    for left in [*range(0, len(whole), 99_991), len(whole) - 600, len(whole) - 1, len(whole)]:
        os.truncate(file, 0)
        file.write_bytes(whole[:left])
        if holds_messages(file):
            kept = stamps(run)
        else:
            kept = []
            with pytest.raises(ValueError, match="nothing that can be read"):
                stamps(run)
        assert kept == [1, 2, 3, 4, 5][: len(kept)]
        found.add(len(kept))
    assert found == {0, 2, 4, 5}


class TestUnansweredImages:
    def test_an_image_is_given_once(self):
        images = UnansweredImages(5.0, 100)
        assert images.add((0, 7), b"rgb", 0.0) is None
        assert images.name((1, 7), 0.1) is None
        assert images.name((0, 7), 0.1) == b"rgb"
        assert images.name((0, 7), 0.2) is None
        assert images.add((0, 7), b"rgb", 0.3) is None  # it came twice
        assert images.name((0, 7), 0.4) is None
        assert images.missing == 0

    def test_an_answer_may_come_first(self):
        images = UnansweredImages(5.0, 100)
        assert images.name((1, 7), 0.0) is None
        assert images.add((1, 7), b"thermal", 1.0) == b"thermal"
        images.forget(100.0)
        assert images.missing == 0

    def test_time_and_memory_are_bounded(self):
        images = UnansweredImages(5.0, 10)
        for stamp, now in ((1, 0.0), (2, 1.0), (3, 2.0)):
            images.add((0, stamp), b"12345", now)
        assert images.name((0, 1), 2.0) is None  # there was no room
        assert images.name((0, 2), 6.5) is None  # too old
        assert images.name((0, 3), 6.5) == b"12345"
        images.forget(20.0)
        assert images.missing == 2

    def test_stamps_that_come_again_are_new_images(self):
        """As where a bag is played in a loop."""
        images = UnansweredImages(5.0, 100)
        images.add((0, 1), b"first", 0.0)
        assert images.name((0, 1), 0.0) == b"first"
        images.add((0, 1), b"second", 60.0)
        assert images.name((0, 1), 60.0) == b"second"

    def test_stamps_that_come_again_soon_are_new_where_they_jump_back(self):
        """As in a loop of a short bag."""
        images = UnansweredImages(5.0, 100)
        second = 10**9
        for start in (0.0, 4.0):
            for k in range(3):
                images.add((0, k * second), b"rgb", start + k)
                assert images.name((0, k * second), start + k) == b"rgb"
        assert (images.given, images.missing) == (6, 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"part_mb": 0}, "part_mb"), ({"total_mb": 600}, r"total_mb \(600\) must be 0, or twice")],
)
def test_wrong_parameters(changes, text):
    with pytest.raises(ValueError, match=text):
        RecorderParameters(folder="x", **changes)
