# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`make soak` in short, and what it judges by."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")
pytest.importorskip("aiohttp", reason="needs aiohttp")
pytest.importorskip("rosbags", reason="needs rosbags")

import ros_nodes
import soak
from soak_samples import Sample, Samples, Trend, trends
from soak_stress import HIGH, LOW, PATIENCE_S, UNKNOWN, Operation, check

from ainet_ros.msg import Event

ROOT = Path(__file__).resolve().parents[1]
S = 10**9


def samples(process, memory, threads=None):
    threads = threads or [3] * len(memory)
    return [
        Sample(float(at), process, mib, count, 7, 2)
        for at, (mib, count) in enumerate(zip(memory, threads, strict=True))
    ]


def test_a_rise_is_told_from_what_comes_and_goes():
    warming = [0.0, 50.0]
    flat = samples("flat", [*warming, *(100.0 + at % 2 for at in range(60))])
    busy = samples("busy", [100.0] * 62, [3 + at % 2 for at in range(62)])
    rising = samples("rising", [*warming, *(100.0 + 0.1 * at for at in range(60))])
    leaking = samples("leaking", [100.0] * 62, [3 + at // 20 for at in range(62)])
    found = {t.process: t for t in trends(flat + busy + rising + leaking, warm_up=2)}
    assert found["flat"].slope == pytest.approx(0, abs=1e-3)
    assert found["rising"].slope == pytest.approx(0.1)
    assert found["rising"].memory == pytest.approx((100.45, 105.45))
    assert found["busy"].growth() == found["flat"].growth() == []
    assert found["leaking"].growth() == ["leaking: 3 threads at the start, 5 at the end"]
    part = {"trends": list(found.values()), "kept": {"subscription": 1024, "weights": 2048}}
    assert soak.soak_growth(part) == [
        "rising: memory rises by 6.00 MiB a minute",
        "leaking: 3 threads at the start, 5 at the end",
    ]
    assert soak.cycles_growth(part)[0] == "rising: memory rises by 95.4 KiB a cycle of its own"


def test_samples_are_in_the_file_as_they_are_taken(tmp_path):
    held = [(tmp_path / "held").open("w") for _ in range(5)]
    file = Samples(tmp_path / "samples.csv")
    file.take({"this": os.getpid(), "gone": 2**22 + 1}, 0)
    for one in held:
        one.close()
    file.take({"this": os.getpid()}, 1)
    before, after = file.taken
    assert before.process == "this"
    assert before.handles == after.handles + 5
    assert before.threads >= 1
    assert before.memory > 10
    names, *rows = (tmp_path / "samples.csv").read_text().splitlines()
    assert names == "at,process,memory,threads,handles,segments"
    assert [row.split(",")[1] for row in rows] == ["this", "this"]
    file.close()


def test_a_part_that_failed_is_told_on_the_page():
    failed = {"faults": ["the run ended: tracker_node ended with status 1"]}
    result = {
        "machine": {"cpu": "a CPU", "threads": 2, "gpu": "none"},
        **dict.fromkeys(("soak", "cycles", "stress"), failed),
    }
    for text in (soak.soak_text(result, None), soak.stress_text(result)):
        assert "did not come to a measurement" in text
        assert "tracker_node ended with status 1" in text


# A history in which all is right, and what is found where it is not


def operation(client, kind, began, ended, asked=None, **answer):
    message = {} if kind == "get" else {"message": answer.pop("message", "")}
    answer = {"success": True, **message, **answer}
    return Operation(client, kind, asked or {}, began * S, ended * S, answer)


def init(client, began, ended, target_id, add=False, kind="init"):
    return operation(client, kind, began, ended, {"box": [], "add": add}, id=target_id)


def refused(client, kind, began, ended, message, **asked):
    return operation(client, kind, began, ended, asked, success=False, message=message, id=0)


NOT_ACTIVE = "the node is not active"
BOTH = {LOW: 10.0, HIGH: 90.0}
RIGHT = [
    init("first", 1, 2, 1),
    init("second", 1, 3, 2),  # at the same time, so that either may come first
    init("first", 4, 5, 3, add=True),
    operation("first", "reset", 6, 7, {"id": 2}),
    refused("second", "reset", 8, 9, f"no target has the id {UNKNOWN}: ...", id=UNKNOWN),
    refused("first", "init nowhere", 8, 9, "box (...) is empty: ...", add=False),
    operation("first", "set", 10, 11, {"values": {"catch_up_s": 2.0}}),
    refused("first", "set wrong", 12, 13, "catch_up_s ...", values={"catch_up_s": 1e6}),
    operation(
        "first", "get", 14, 15, {"own": {"catch_up_s": 2.0}}, values={"catch_up_s": 2.0, **BOTH}
    ),
    operation("manager", "deactivate", 20, 21),
    refused("manager", "init inactive", 22, 23, NOT_ACTIVE, add=False),
    refused("second", "init", 20, 22, NOT_ACTIVE, add=False),
    operation("manager", "activate", 24, 25),
    init("second", 26, 27, 4),
]
EVENTS = [
    (Event.INIT, 1), (Event.RESET, 1), (Event.INIT, 2), (Event.INIT, 3), (Event.RESET, 2),
    (Event.RESET, 3), (Event.INIT, 4), (Event.RESET, 4),
]  # fmt: skip
TRACKS = [
    (came * S, stamp * S, target_id)
    for came, stamp, target_id in ((2, 2, 1), (5, 4, 2), (6, 6, 3), (8, 8, 3), (28, 28, 4))
]


def test_a_right_history_passes():
    assert check(RIGHT, EVENTS, TRACKS) == []


@pytest.mark.parametrize(
    ("operations", "events", "tracks", "fault"),
    [
        ([Operation("first", "get", {}, 1, 2, None)], [], [],
         f"first: no answer to get within {PATIENCE_S:g} s"),
        ([init("first", 30, 31, 5), init("second", 32, 33, 5)], [], [], "started twice"),
        ([init("first", 30, 31, 2)], [], [], "target 2 was asked for after 4 was answered"),
        ([init("first", 30, 31, 6)], [], [], "target 6 was started without an event INIT"),
        ([], [(Event.INIT, 9)], [], "INIT of target 9, which nobody was answered with"),
        ([init("first", 22, 23, 5)], [], [], "target 5 was started while inactive"),
        ([init("first", 30, 31, 5, kind="init nowhere")], [], [], "without a size started"),
        ([refused("first", "init", 5, 6, NOT_ACTIVE, add=False)], [], [], "init was refused"),
        ([refused("first", "init", 5, 6, "no", add=True)], [], [], "init was refused: 'no'"),
        ([refused("first", "init", 8, 9, "see max_targets", add=False)], [], [], "max_targets"),
        ([refused("first", "init", 15, 16, "no pair of images has come in yet", add=False)],
         [], [], "no pair of images"),
        ([operation("first", "reset", 30, 31, {"id": UNKNOWN})], [], [], "that never was"),
        ([operation("first", "reset", 30, 31, {"id": 2})], [], [], "target 2 was dropped twice"),
        ([operation("first", "reset", 30, 31, {"id": 7})], [], [], "without an event RESET"),
        ([refused("first", "reset", 8, 9, NOT_ACTIVE, id=2)], [], [], "reset of 2 was refused"),
        ([refused("first", "set", 8, 9, "no", values={})], [], [], "was refused: 'no'"),
        ([operation("first", "set wrong", 8, 9, {"values": {"a": 1}})], [], [], "was answered"),
        ([operation("first", "get", 8, 9, {"own": {"a": 1}}, values={"a": 2, **BOTH})],
         [], [], "a was set to 1 and read as 2"),
        ([operation("first", "get", 8, 9, {"own": {}}, values={LOW: 10.0, HIGH: 80.0})],
         [], [], "read as of two settings"),
        ([operation("manager", "cleanup", 22, 23, success=False)], [], [], "cleanup failed"),
        ([], [(Event.INIT, 3)], [], "INIT of target 3 after that of 4"),
        ([], [(Event.RESET, 1)], [], "RESET of target 1, which was not there"),
        ([], [(Event.LOST, 1)], [], "of target 1, which was not there"),
        ([init("first", 30, 31, 5)], [(Event.INIT, 5)], [], "target 5 ended without an event"),
        ([], [], [(24, 22, 0)], "was answered while inactive"),
        ([], [], [(9, 8, 8)], "target 8, which never was"),
        ([], [], [(9, 8, 2)], "target 2, dropped before"),
        ([], [], [(5, 4, 1)], "target 1, gone before"),
        ([], [], [(29, 28, 3)], "target 3, gone before"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_history_is_found(operations, events, tracks, fault):
    seen = [(came * S - 1, stamp * S - 1, target_id) for came, stamp, target_id in tracks]
    if fault.endswith("before") or "inactive" in fault:
        seen = [(came * S - 1, stamp * S + 1, target_id) for came, stamp, target_id in tracks]
    found = check([*RIGHT, *operations], EVENTS + events, TRACKS + seen)
    assert any(fault in one for one in found), found


def test_a_node_that_never_tracks_is_found():
    assert check([], [], [(S, S, 0)]) == ["no pair was answered with a target"]


# The program


def start(tmp_path, *words):
    weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    command = [sys.executable, ROOT / "test/soak.py", "--weights", weights, "--size", "160x120"]
    return subprocess.Popen(
        [*command, "--output", tmp_path / "output", *words],
        env=ros_nodes.new_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_make_soak_in_short(tmp_path):
    page = tmp_path / "reliability.md"
    shutil.copy(ROOT / "docs/reliability.md", page)
    picture = tmp_path / "images" / "soak.png"
    picture.parent.mkdir()
    process = start(
        tmp_path, "--seconds", "6", "--cycles", "11", "--stress", "5", "--page", page,
        "--picture", picture,
    )  # fmt: skip
    said, _ = process.communicate()
    result = json.loads((tmp_path / "output/result.json").read_text())
    for part in ("soak", "cycles", "stress"):
        assert not result[part]["faults"], said
    load, cycles, stress = result["soak"], result["cycles"], result["stress"]
    assert load["inits"] > 0
    assert len(load["waits_ms"]) == load["inits"]
    assert min(load[one]["visits"] for one in ("viewer", "page")) > 0
    assert min(load[one]["pictures"] for one in ("viewer", "page")) > 0
    assert int(load["recorder"]["images"]) > 0
    assert load["rate"] > load["windows"][0]["answered_hz"]
    watched = {"tracker_node", "console", "recorder", "replay_camera"}
    assert {trend["process"] for trend in load["trends"]} == watched
    assert cycles["cycles"] == 11
    assert cycles["inits"] == 2
    assert len((tmp_path / "output/cycles/cycles.csv").read_text().splitlines()) == 12
    # In seconds memory tells nothing; threads and handles do.
    (trend,) = (Trend(**trend) for trend in cycles["trends"])
    assert not trend.growth()
    assert stress["targets"] > 0
    assert stress["pairs"] > 0
    assert {"activate", "get", "init", "init inactive", "reset", "set"} <= stress["asked"].keys()
    text = page.read_text()
    assert "at full load" in text
    assert "11 times through the states" in text
    assert "images/soak.png" in text
    assert "each answer was right" in text
    assert picture.stat().st_size > 1000


def test_an_interrupted_soak_leaves_its_samples(tmp_path):
    process = start(tmp_path, "--seconds", "8")
    raw = tmp_path / "output/soak.csv"
    deadline = time.monotonic() + ros_nodes.PATIENCE_S
    while not raw.exists() or len(raw.read_text().splitlines()) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=ros_nodes.PATIENCE_S)
    assert process.returncode == 130, said
    assert "interrupted" in said
    result = json.loads((tmp_path / "output/result.json").read_text())
    assert result["soak"]["inits"] >= 0
    assert result["machine"]
