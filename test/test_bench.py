# SPDX-License-Identifier: Apache-2.0
"""What `ainet bench` measures with, and its reports."""

import argparse
import json
import os

import pytest
import torch
import yaml
from networks import TINY
from test_training_parts import sequence

from ainet_ros.bench import measure, scan
from ainet_ros.cli import bench


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
