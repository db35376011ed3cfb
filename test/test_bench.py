# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What `ainet bench` measures with, and its reports."""

import argparse
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from networks import TINY, tiny
from test_training_parts import sequence

from ainet_ros.bench import limit, measure, network, scan
from ainet_ros.cli import bench
from ainet_ros.network.scan import BACKENDS
from ainet_ros.tracker import weights
from ainet_ros.vision.encoding import stamp_ns


def ainet(*words):
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    args = parser.parse_args(["bench", *words])
    return args.run(args)


def test_memory_growth_sees_what_a_function_holds_and_what_it_gave_back():
    mebibyte = 2**20
    assert measure.memory_growth(lambda: None) < 8 * mebibyte

    def hold_and_give_back():
        torch.ones(64 * mebibyte, dtype=torch.uint8)

    # Linux counts resident pages in batches of 32 on each CPU, at the start and at the peak.
    missing = 2 * 32 * os.sysconf("SC_PAGESIZE") * os.cpu_count()
    for _ in range(2):  # the second time it must not come from memory kept for it
        growth = measure.memory_growth(hold_and_give_back)
        assert 64 * mebibyte - missing <= growth < 80 * mebibyte


def test_median_times_takes_turns_and_leaves_the_first_out(monkeypatch):
    now, calls = 0.0, []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)

    def function(name, durations):
        def run():
            nonlocal now
            calls.append(name)
            now += next(durations)

        return run

    functions = {"a": function("a", iter([9, 1, 5, 2])), "b": function("b", iter([1, 7, 7, 7]))}
    assert measure.median_times(functions, repeats=3) == {"a": 2, "b": 7}
    assert calls == ["a", "b"] * 4


def test_bench_scan_reports_every_backend(monkeypatch, capsys):
    small = scan.Case("small", 2, 20, 30, 4, by_step=True, backward=True)
    monkeypatch.setattr(scan, "CASES", (small,))
    assert ainet("scan", "--repeats", "1", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    (case,) = result["cases"]
    assert list(case["backends"]) == ["reference", "torch", "cpp"]
    assert case["backends"]["reference"]["speedup"] == 1
    assert all(row["seconds"] > 0 for row in case["backends"].values())

    assert ainet("scan", "--repeats", "1") == 0
    printed = capsys.readouterr().out
    assert "small: batch x channels x length x states = 2 x 20 x 30 x 4" in printed


def test_bench_scan_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="--repeats must be 1 or more"):
        ainet("scan", "--repeats", "0")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA GPU"):
            ainet("scan", "--device", "cuda")


def test_bench_training_splits_the_time_of_a_sample(tmp_path, capsys):
    sequence(tmp_path / "data" / "walks" / "one")
    network = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}
    data = {"videos": {"walks": {"validation": []}}}
    config = {"preset": "small", "steps": 100, "batch": 2, "network": network, "data": data}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = (
        "training", str(tmp_path / "config.yaml"), "--data", str(tmp_path / "data"),
        "--cache", str(tmp_path / "cache"), "--repeats", "2",
    )  # fmt: skip
    assert ainet(*command, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    seconds = result["seconds"]
    stages = ["making it", "forward and losses", "backward", "optimizer and average"]
    assert list(seconds) == stages
    assert seconds["making it"] > 0
    assert seconds["forward and losses"] > 0
    assert ainet(*command) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in seconds)


def test_bench_limit_reports_rates(monkeypatch, capsys):
    monkeypatch.setattr(limit, "SIDE", 64)
    monkeypatch.setattr(limit, "COPIED", 2**16)
    assert ainet("limit", "--repeats", "1", "--json") == 0
    rates = json.loads(capsys.readouterr().out)["per_second"]
    assert list(rates) == ["float32", "bfloat16", "int8", "memory"]
    assert min(rates.values()) > 0
    assert ainet("limit", "--repeats", "1") == 0
    assert "GB/s" in capsys.readouterr().out


def test_limit_multiplies_what_it_says():
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        function, operations = limit.runs("cpu")[name]
        assert function().dtype == dtype
        assert operations == 2 * function().numel() * limit.SIDE
    assert limit.runs("cpu")["int8"][0]().dtype == torch.int32


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_stages_make_up_the_network(monkeypatch, precision):
    monkeypatch.setattr(limit, "SIDE", 64)
    config = tiny().config
    result = network.measure(config, "cpu", precision, repeats=1)
    whole, *stages = (result["stages"].pop(name) for name in ("whole", *network.STAGES))
    assert result["stages"] == {}
    assert sum(row["seconds"] for row in stages) < whole["seconds"]
    assert min(row["seconds"] for row in stages) > 0
    # All multiplications but those of the box prompt.
    assert sum(row["macs"] for row in stages) == pytest.approx(whole["macs"], rel=0.02)
    assert "blocks" in network.table(network.measure(config, "cpu", precision, repeats=1))


def test_step_by_step_takes_the_reference_scan_and_nothing_else(monkeypatch):
    used = []
    for name, backend in BACKENDS.items():

        def noted(problem, name=name, backend=backend):
            used.append(name)
            return backend(problem)

        monkeypatch.setitem(BACKENDS, name, noted)
    network.StepByStep(tiny(), torch.float32)()
    assert set(used) == {"reference"}
    used.clear()
    network.Run(tiny(), torch.float32)()
    assert used
    assert "reference" not in used


def test_growth_is_measured_drawn_and_stops_at_the_memory(monkeypatch, tmp_path, capsys):
    weights.save(tiny(), tmp_path / "tiny.safetensors")
    monkeypatch.setattr(network, "LAYERS", (1, 4, 6))  # of a depth of 4
    monkeypatch.setattr(network, "RESOLUTIONS", (60, 112))  # of patches of 14
    monkeypatch.setattr(network, "available_memory", lambda: 2**20)
    warm = set()
    pair = network.Run.__call__
    monkeypatch.setattr(network.Run, "__call__", lambda run: (pair(run), warm.add(run)))
    monkeypatch.setattr(network, "memory_growth", lambda run: int(run in warm))
    command = "network", str(tmp_path / "tiny.safetensors"), "--repeats", "1"
    picture = tmp_path / "growth.png"
    assert ainet(*command, "--growth", str(picture), "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    run = {(r["axis"], r["value"], r["variant"]) for r in rows if r["seconds"] is not None}
    assert all(row["memory"] == 1 for row in rows if row["seconds"] is not None)
    assert ("layers", 4, "AINet-Transformer") in run
    assert {key for key in run if key[2] == "AINet"} == {
        ("layers", 1, "AINet"), ("layers", 4, "AINet"),
        ("resolution", 56, "AINet"), ("resolution", 112, "AINet"),
    }  # fmt: skip
    # The scores of 4 x 64 tokens and 3 heads, four times: 3 MiB.
    assert ("resolution", 112, "AINet-Transformer") not in run
    assert cv2.imread(str(picture)).std() > 5


def test_fit_tells_a_line_from_a_square():
    def rows(power):
        return [
            {"axis": "resolution", "variant": "AINet", "tokens": n, "fusion": 1e-6 * n**power}
            for n in (100, 400, 900, 1600)
        ]

    line, square = (network.fit(rows(power), "AINet") for power in (1, 2))
    assert line["exponent"] == pytest.approx(1)
    assert line["linear_r2"] == pytest.approx(1)
    assert square["exponent"] == pytest.approx(2)
    assert square["linear_r2"] < 0.97


def test_layers_are_spread_to_the_last():
    assert network.spread(1, 12) == (11,)
    assert network.spread(3, 12) == (3, 7, 11)
    assert network.spread(12, 12) == tuple(range(12))


def test_bench_precision_compares_with_the_usual_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ainet_ros.tracker.tracker.translate", lambda match, device: match)
    monkeypatch.setattr("ainet_ros.tracker.device._quick_float", lambda: torch.bfloat16)
    weights.save(tiny(), tmp_path / "tiny.safetensors")
    file = tmp_path / "result.json"
    words = ["precision", str(tmp_path / "tiny.safetensors"), "--repeats", "1"]
    assert ainet(*words, "--json", str(file)) == 0
    times = json.loads(file.read_text())["frame_ms"]
    floats = [f"{name}{form}" for name in ("float32", "bfloat16") for form in ("", ", compiled")]
    assert list(times) == [*floats, "int8"]
    *_, usual, _, last = capsys.readouterr().out.splitlines()
    assert "1.00 times as fast as bfloat16" in usual
    assert f"{times['bfloat16'] / times['int8']:.2f} times as fast as bfloat16" in last


def test_bench_track_adds_up(tmp_path, capsys):
    weights.save(tiny(), tmp_path / "tiny.safetensors")
    command = (
        "track", "--weights", str(tmp_path / "tiny.safetensors"), "--repeats", "1",
        "--size", "160x120", "--size", "64x48", "--targets", "3",
    )  # fmt: skip
    assert ainet(*command, "--json", str(tmp_path / "new" / "track.json")) == 0
    assert "3 targets at once" in capsys.readouterr().out
    sizes = json.loads((tmp_path / "new" / "track.json").read_text())["sizes"]
    assert list(sizes) == ["160x120", "64x48"]
    for row in sizes.values():
        whole = sum(row[f"{part}_ms"] for part in ("preprocess", "network", "postprocess"))
        assert row["frames_per_second"] == pytest.approx(1e3 / whole)
        assert 0 < row["share_beside_network"] < 1
        assert list(row["targets_ms"]) == ["1", "3"]
        assert min(row["targets_ms"].values()) > 0


def measured(published_hz, dropped=0.0, memory=0):
    """A row as of `ainet bench node`."""
    latency = dict.fromkeys(("p50", "p95", "p99", "jitter"), 50.0)
    return {
        "published_hz": published_hz,
        "answered_hz": published_hz * (1 - dropped),
        "dropped": dropped,
        "latency_ms": latency,
        "overhead_ms": 5.0,
        "stages_ms": {"network": 40.0},
        "slowest_ms": {"network": 60.0},
        "cpu": 1.0,
        "memory": memory,
    }


def rig_of_runs(monkeypatch, run):
    """A rig whose frames take 10 ms, and whose runs come of `run(rate)`."""
    from ainet_ros.bench import node

    def answer(rate, seconds):
        row = run(rate)
        row["stages_ms"] = {stage: 10.0 if stage == "network" else 0.0 for stage in node.STAGES}
        return {"rate": rate, **row}

    rig = node.Rig(None, None, "", None)
    monkeypatch.setattr(rig, "run", answer)
    return rig


def test_peak_rate_of_the_node_is_what_the_cameras_published(monkeypatch):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from ainet_ros.bench import node

    monkeypatch.setattr(node, "SHARES", (0.95, 0.9))  # of the 100 Hz of 10 ms
    rig = rig_of_runs(
        monkeypatch, lambda rate: measured(min(rate, 30.0), dropped=0.2 if rate > 90 else 0.0)
    )
    rows = node._rates(rig, 1.0)
    assert [row["published_hz"] for row in rows] == [30.0, 30.0, 30.0, 22.5, 15.0, 7.5]
    text = node.table({"machine": {}, "sizes": {"160x120": {"rates": rows}}})
    assert "up to 30.0 Hz" in text


def test_a_rate_that_drops_once_may_be_the_peak_rate(monkeypatch):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from ainet_ros.bench import node

    monkeypatch.setattr(node, "SHARES", (1.1, 0.9))  # of the 100 Hz of 10 ms
    drops = iter([0.0, 0.2, 0.04, 0.0])  # at the slow rate, at the first rate twice, below it
    rig = rig_of_runs(monkeypatch, lambda rate: measured(rate, dropped=next(drops)))
    assert [row["rate"] for row in rig.to_peak(1.0)] == pytest.approx([110.0, 110.0])


def test_rates_above_the_fastest_are_not_tried_again_and_again(monkeypatch):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from ainet_ros.bench import node

    monkeypatch.setattr(node, "SHARES", (2.0, 1.6, 1.0))  # of the 100 Hz of 10 ms
    rig = rig_of_runs(monkeypatch, lambda rate: measured(rate, dropped=0.2))
    rates = [row["rate"] for row in rig.to_peak(1.0)]
    assert rates == pytest.approx([120.0, 120.0, 96.0, 96.0, 60.0, 60.0])


@pytest.mark.parametrize(
    ("keeps_up", "expected"),
    [(28.0, 4 * 20.0), (5.0, 4 * 5.0), (45.0, 120.0)],
    ids=["of the peak", "no peak", "at most"],
)
def test_an_overload_is_four_times_the_peak_rate(monkeypatch, keeps_up, expected):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from ainet_ros.bench import node

    monkeypatch.setattr(node, "SHARES", (0.5, 0.4, 0.2, 0.1))  # of the 100 Hz of 10 ms

    def run(rate):
        row = measured(rate, dropped=max(0.0, 1 - keeps_up / rate))
        return {**row, "answered_hz": min(rate, keeps_up)}

    assert rig_of_runs(monkeypatch, run).overload_rate(1.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seconds", "lengths", "growth"),
    [
        (3, [3], None),
        (61, [60, 1], None),
        (120, [60, 60], 5 * 2**20),
        (181, [60, 60, 60, 1], 5 * 2**20),
    ],
)
def test_memory_in_an_overload_grows_over_whole_minutes(monkeypatch, seconds, lengths, growth):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from ainet_ros.bench import node

    spans = []

    def window(rate, length):
        spans.append(length)
        return measured(rate, memory=sum(spans) * 2**20 // 12), np.full(10, 50.0)

    rig = node.Rig(SimpleNamespace(stop=lambda module: None), None, "", None)
    monkeypatch.setattr(rig, "cameras", lambda rate: None)
    monkeypatch.setattr(rig, "window", window)
    entry = rig.overload(80.0, seconds)
    assert spans == lengths
    assert entry["growth_a_minute"] == growth
    text = node.table({"machine": {}, "sizes": {"160x120": entry}})
    assert ("memory +5.00 MiB a minute" in text) == (growth is not None)


def test_listener_of_a_bench_leaves_out_what_was_sent_before_it_was_cleared():
    ros_nodes = pytest.importorskip("ros_nodes", reason="needs ROS 2")
    import rclpy
    from std_msgs.msg import Header

    from ainet_ros.bench.node import Listener
    from ainet_ros.msg import Track

    rclpy.init(domain_id=ros_nodes.new_domain())
    try:
        sender = rclpy.create_node("sender", namespace="/bench")
        frames = sender.create_publisher(Header, "replay_camera/frame", 10)
        tracks = sender.create_publisher(Track, "ainet/track", 10)
        listener = Listener()

        def send():
            header = Header(stamp=sender.get_clock().now().to_msg())
            frames.publish(header)
            tracks.publish(Track(header=header))
            return stamp_ns(header.stamp)

        deadline = time.monotonic() + 20
        while not listener.published & listener.answers.keys():  # until they have met
            assert time.monotonic() < deadline
            send()
            listener.spin(0.1)
        send()
        listener.clear()
        stamp = send()
        while stamp not in listener.published & listener.answers.keys():
            assert time.monotonic() < deadline
            listener.spin(0.1)
        assert listener.published == {stamp}
        assert listener.answers.keys() == {stamp}
    finally:
        rclpy.shutdown()


def test_bench_node_measures_rates_and_an_overload(tmp_path):
    ros_nodes = pytest.importorskip("ros_nodes", reason="needs ROS 2")
    from ainet_ros.bench import node

    tiny_weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    command = [
        sys.executable, "-m", "ainet_ros.cli", "bench", "node", "--weights", tiny_weights,
        "--size", "160x120", "--json", "--seconds", "2",
    ]  # fmt: skip

    def run(*more):
        done = subprocess.run(
            [*command, *more], env=ros_nodes.new_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["sizes"]["160x120"]

    rows = run()["rates"]
    assert rows
    for row in rows:
        assert 0 <= row["dropped"] < 1
        assert row["answered_hz"] <= row["published_hz"]
        latency = row["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert list(row["stages_ms"]) == [
            "pair", "queue", "decode", "preprocess", "network", "postprocess", "publish",
        ]  # fmt: skip
        assert row["stages_ms"]["network"] < latency["p99"]
        assert row["memory"] > 2**20
        assert row["cpu"] > 0
    assert [row["rate"] for row in rows] == sorted((row["rate"] for row in rows), reverse=True)
    kept = [row for row in rows if row["dropped"] < 0.05]
    expected = [share * row["published_hz"] for row in kept[:1] for share in node.LOWER]
    lower = rows[rows.index(kept[0]) + 1 :] if kept else []
    assert [row["rate"] for row in lower] == pytest.approx(expected)
    overload = run("--overload", "3")
    assert overload["seconds"] == 3
    assert len(overload["memory"]) == 1
    assert overload["growth_a_minute"] is None
    assert overload["p99_frames"] > 0
